# ruff: noqa
# fmt: off
"""Bit-exact numpy model of what ttnn 0.81.1 computes on a Wormhole B0 for the operations that run on the
matrix/element-wise FPU and the packer.  Integer arithmetic throughout; arrays are bfloat16 bit patterns (uint16).

The tests' independent oracle, slow and plain (about 0.1 us per multiply and fidelity phase); it imports nothing of the
package. Source: rules found on the official functional simulator v1.10; checked there against every recorded vector.
"""
import numpy as np

PHASES = {"LoFi": 1, "HiFi2": 2, "HiFi3": 3, "HiFi4": 4}

# ---------------------------------------------------------------- helpers
def f32(u):
    """bfloat16 bits -> float32"""
    return (np.asarray(u).astype(np.uint32) << 16).view(np.float32)

def bits32(f):
    return np.ascontiguousarray(f, dtype=np.float32).view(np.uint32)

def bf16_rne(f):
    """float32 -> bfloat16 bits, round to nearest even (host conversions, most SFPU kernels, packer L1 accumulation)"""
    b = bits32(f).astype(np.uint64)
    return (((b + 0x7FFF + ((b >> 16) & 1)) >> 16) & 0xFFFF).astype(np.uint16)

def bf16_rna(f):
    """float32 -> bfloat16 bits, round half away from zero (packer reading a 32-bit destination)"""
    b = bits32(f).astype(np.uint64)
    return (((b + 0x8000) >> 16) & 0xFFFF).astype(np.uint16)

def _flush(u):
    return np.where((u & 0x7FFF) < 0x80, 0, u)

def _fields(u):
    u = np.asarray(u).astype(np.int64)
    return u >> 15, (u >> 7) & 255, ((u & 127) | 128) << 3          # sign, biased exponent, 11-bit significand

def _half_up(m, d):
    """(m + half) >> d elementwise"""
    d = np.minimum(d, 40)
    return np.where(d > 0, (m + ((1 << d) >> 1)) >> d, m)

# ---------------------------------------------------------------- accumulator
def accumulate(terms, dst, fp32_dest):
    """dst (float32 bit pattern, int64) + signed terms [(sign, biased exponent, significand << 13)].

    Everything is aligned to the largest exponent on a 24-bit grid (fp32 destination) or an 11-bit grid (bf16
    destination), each operand rounded separately (half away from zero for dst, half towards +inf for the terms),
    summed exactly, then rounded (half away from zero) to 24 or 8 significand bits.  Underflow gives +0."""
    sd, ed = dst >> 31, (dst >> 23) & 255
    md = np.where(ed > 0, (dst & 0x7FFFFF) | 0x800000, 0)
    e = ed
    for _, te, _ in terms: e = np.maximum(e, te)
    under = e <= 0
    def align(s, te, m, minus):
        d = np.maximum(e - te, 0); dd = np.minimum(d, 40)
        r = np.where(d > 0, np.where(d < 31, (m + ((1 << dd) >> 1) - (s if minus else 0)) >> dd, 0), m)
        if not fp32_dest: r = (r + 4096 - (s if minus else 0)) & ~np.int64(0x1FFF)
        return r
    man = align(sd, ed, md, False)
    for s, te, m in terms:
        a = align(s, te, m, True)
        man = man + np.where(s == sd, a, -a)
    sg = sd ^ (man < 0)
    man = np.abs(man)
    zero = (man == 0) | under
    m1 = np.maximum(man, 1)
    shift = 23 - np.floor(np.log2(m1.astype(np.float64))).astype(np.int64)
    shift = np.where((sg == 1) & (man == 1), shift - 27, shift)             # Wormhole renormalisation quirk for -1
    e2 = e - shift
    sh = shift if fp32_dest else shift - 16
    rs = np.maximum(-sh, 0)
    m2 = np.where(sh < 0, (m1 + ((1 << rs) >> 1)) >> rs, m1 << np.maximum(sh, 0))
    if not fp32_dest: m2 = m2 << 16
    e2 = e2 + ((m2 >> 24) & 1)
    m2 = m2 & 0x7FFFFF
    out = np.where(e2 >= 255, (sg << 31) | (255 << 23), (sg << 31) | (np.maximum(e2, 0) << 23) | m2)
    return np.where(zero | (e2 <= 0), 0, out)

def pack_bf16(dst, fp32_dest):
    """destination register -> bfloat16 in L1"""
    return (_flush(((dst + 0x8000) >> 16) if fp32_dest else dst >> 16) & 0xFFFF).astype(np.uint16)

# ---------------------------------------------------------------- block float
def bfp_quantise(u, mbits, mode):
    """16 consecutive elements share the largest exponent; mbits magnitude bits (7 = bfp8_b, 3 = bfp4_b).
    mode 'rne': ttnn.from_torch on the host.  mode 'rna': the packer.  mode 'trunc': drop bits.  Returns bfloat16 bits."""
    s = np.asarray(u).astype(np.int64); shape = s.shape; s = s.reshape(-1, 16)
    sg, e, m = s >> 15, (s >> 7) & 255, (s & 127) | 128
    m = np.where(e == 0, 0, m)
    em = e.max(-1, keepdims=True)
    sh = np.minimum(em - e, 30) + (8 - mbits)
    half = (1 << sh) >> 1
    if mode == "rne":
        q = m >> sh; rem = m & ((1 << sh) - 1)
        q = q + ((rem > half) | ((rem == half) & (sh > 0) & ((q & 1) == 1)))
    elif mode == "rna": q = (m + half) >> sh
    else: q = m >> sh
    q = np.minimum(q, (1 << mbits) - 1)
    val = q.astype(np.float64) * np.exp2((em - 127 - (mbits - 1)).astype(np.float64))
    val = np.where((sg == 1) & (q > 0), -val, val).astype(np.float32)
    return (bits32(val) >> 16).astype(np.uint16).reshape(shape)

def host_quantise(u, dtype):
    return {"bf16": lambda: np.asarray(u), "bfp8": lambda: bfp_quantise(u, 7, "rne"), "bfp4": lambda: bfp_quantise(u, 3, "rne")}[dtype]()

def pack_bfp8(u_bf16, from_bfp8_kernel=True):
    """bfloat16 destination value -> bfp8_b in L1.  When the kernel's own data format is bfp8_b (matmul, binary ops with
    bfp8 output) the value is first rounded to 7 significand bits; ttnn.typecast(bf16 -> bfp8) skips that step."""
    u = np.asarray(u_bf16).astype(np.int64)
    if from_bfp8_kernel: u = (u + 1) & 0xFFFE
    return bfp_quantise(u.astype(np.uint16), 7, "rna")

def pack_bfp4(u_bf16):
    """ttnn.typecast(bf16 -> bfp4): round to 7 significand bits, then bfp8 (both half away from zero), then drop four bits"""
    s = (np.asarray(u_bf16).astype(np.int64) + 1) & 0xFFFE; shape = s.shape; s = s.reshape(-1, 16)
    sg, e, m = s >> 15, (s >> 7) & 255, (s & 127) | 128
    m = np.where(e == 0, 0, m); em = e.max(-1, keepdims=True)
    sh = np.minimum(em - e, 30) + 1
    q = np.minimum((m + ((1 << sh) >> 1)) >> sh, 127) >> 4
    val = q.astype(np.float64) * np.exp2((em - 127 - 2).astype(np.float64))
    val = np.where((sg == 1) & (q > 0), -val, val).astype(np.float32)
    return (bits32(val) >> 16).astype(np.uint16).reshape(shape)

# ---------------------------------------------------------------- matmul
def _mvmul(dst, b_rows, a_cols, phase, fp32_dest):
    """dst (M,N) += b_rows (M,16) @ a_cols (16,N) for one fidelity phase.  b = in0 (SrcB), a = in1 (SrcA)."""
    sb, eb, mb = _fields(b_rows); sa, ea, ma = _fields(a_cols)
    za, zb = ea == 0, eb == 0
    ma = (ma >> 1) & 31 if phase & 1 else ma >> 6            # in1: 5 bits, then the next 5
    mb = (mb & 15) << 3 if phase & 2 else mb >> 4            # in0: 7 bits, then the remaining ones
    adj = -127 - (5 if phase & 1 else 0) - (7 if phase & 2 else 0)
    terms = []
    for g in (0, 8):                                          # two groups of eight products
        G = slice(g, g + 8)
        z = zb[:, None, G] | za[G].T[None]
        e = np.where(z, 0, eb[:, None, G] + ea[G].T[None] + adj)
        p = np.where(z, 0, mb[:, None, G] * ma[G].T[None])    # at most 12 bits
        s = np.where(z, 0, sb[:, None, G] ^ sa[G].T[None])
        em = e.max(-1)
        d = np.minimum(em[..., None] - e, 30)
        v = (2 * p + (1 << d)) >> (d + 1)                     # align to the group's largest exponent, half up
        sop = np.where(s == 1, -v, v).sum(-1)
        sop = np.where(em > 0, sop, 0)
        terms.append(((sop < 0).astype(np.int64), np.where(em > 0, em, 0), np.abs(sop) << 13))
    return accumulate(terms, dst, fp32_dest)

def _bf16_add_rne(a, b):
    r = bf16_rne((f32(a).astype(np.float64) + f32(b)).astype(np.float32)).astype(np.int64)
    return _flush(r).astype(np.uint16)

def matmul(x, w, math_fidelity="HiFi2", fp32_dest_acc_en=False, packer_l1_acc=False, in0_block_w=None, raw=False):
    """x (M,K), w (K,N): the bfloat16 bits the device sees (block-float operands already dequantised)."""
    M, K = x.shape; N = w.shape[1]
    nblk = K // (32 * in0_block_w) if packer_l1_acc and in0_block_w else 1
    step = K // nblk
    acc = None
    for b in range(nblk):
        last = b == nblk - 1
        if last and acc is not None:                          # the last block continues from the sum kept in L1
            dst = bits32(acc).astype(np.int64) if fp32_dest_acc_en else acc.astype(np.int64) << 16
        else:
            dst = np.zeros((M, N), np.int64)
        for k in range(b * step, (b + 1) * step, 32):         # one tile of K at a time
            for ph in range(PHASES[math_fidelity]):           # all phases of a tile before the next tile
                for h in (0, 16):                             # 16 products per step
                    dst = _mvmul(dst, x[:, k+h:k+h+16], w[k+h:k+h+16], ph, fp32_dest_acc_en)
        if last: break
        if fp32_dest_acc_en:
            part = dst.astype(np.uint32).view(np.float32)
            acc = part if acc is None else (acc + part).astype(np.float32)
        else:
            part = pack_bf16(dst, False)
            acc = part if acc is None else _bf16_add_rne(acc, part)
    return dst if raw else pack_bf16(dst, fp32_dest_acc_en)

def linear_bias_default(x, w, bias, math_fidelity, in0_block_w):
    """default config: every block is summed in L1, the bias row is added by the FPU at the end"""
    acc = None
    for k in range(0, x.shape[1], 32 * in0_block_w):
        s = slice(k, k + 32 * in0_block_w)
        p = matmul(x[:, s], w[s], math_fidelity)
        acc = p if acc is None else _bf16_add_rne(acc, p)
    return fpu_add(acc, bias)

# ---------------------------------------------------------------- element-wise FPU ops, bfloat16 destination
def fpu_add(a, b, subtract=False):
    a = np.asarray(a).astype(np.int64); b = np.asarray(b).astype(np.int64)
    if subtract: b = b ^ 0x8000
    a, b = np.broadcast_arrays(a, b)
    a = np.where(a & 0x7F80, a, 0); b = np.where(b & 0x7F80, b, 0)
    sw = (a & 0x7FFF) < (b & 0x7FFF)
    a, b = np.where(sw, b, a), np.where(sw, a, b)             # |a| >= |b|
    sa, ea, ma = _fields(a); sb, eb, mb = _fields(b)
    ma = np.where(ea > 0, ma, 0); mb = np.where(eb > 0, mb, 0)
    d = ea - eb
    mb = np.where(d < 12, _half_up(mb, np.maximum(d, 0)), 0)  # smaller operand rounded to the larger one's 11-bit grid
    m = np.where(sa == sb, ma + mb, ma - mb)
    return pack_bf16(accumulate([(sa, ea, m << 13)], np.zeros_like(m), False), False)

def fpu_mul(a, b, phases=4):
    """a (SrcA) * b (SrcB), one bfloat16 rounding of the running sum per fidelity phase"""
    a, b = np.broadcast_arrays(np.asarray(a).astype(np.int64), np.asarray(b).astype(np.int64))
    sa, ea, ma = _fields(a); sb, eb, mb = _fields(b)
    zero = (ea == 0) | (eb == 0)
    dst = np.zeros(a.shape, np.int64)
    for ph in range(phases):
        m1 = (ma >> 1) & 31 if ph & 1 else ma >> 6
        m2 = (mb & 15) << 3 if ph & 2 else mb >> 4
        e = ea + eb - 127 - (5 if ph & 1 else 0) - (7 if ph & 2 else 0)
        z = zero | (e <= 0)
        dst = accumulate([(np.where(z, 0, sa ^ sb), np.where(z, 0, e), np.where(z, 0, (m1 * m2) << 13))], dst, False)
    return pack_bf16(dst, False)

def rotary_embedding(x, cos, sin):
    """x * cos + rotate_half(x) * sin with the default config; all arguments already broadcast to one shape"""
    d = x.shape[-1]
    neg = np.where(x & 0x7FFF, x ^ 0x8000, x).astype(np.uint16)
    rot = np.concatenate([neg[..., d // 2:], x[..., :d // 2]], -1)
    return fpu_add(fpu_mul(x, cos), fpu_mul(rot, sin))

# ---------------------------------------------------------------- row reductions and what is built on them
def row_sum(x, math_fidelity="HiFi4", fp32_dest_acc_en=False):
    """sum over the last axis of (M,K) bfloat16 bits -> float32 values of the destination register (a matmul with ones)"""
    one = np.full((x.shape[1], 1), 0x3F80, np.uint16)
    d = matmul(x, one, math_fidelity, fp32_dest_acc_en, raw=True)[:, 0]
    return d.astype(np.uint32).view(np.float32)

def ttnn_sum(x, mean=False):
    """ttnn.sum / ttnn.mean over the last axis, default config (HiFi4, fp32 destination)"""
    d = row_sum(x, "HiFi4", True) * np.float32(1 / x.shape[1] if mean else 1)
    return pack_bf16(bits32(d).astype(np.int64), True)

def rms_norm(x, weight, eps, math_fidelity):
    """(M,K) bits; bfloat16 destination, math_approx_mode=False"""
    ph = PHASES[math_fidelity]
    ms = (bits32(row_sum(fpu_mul(x, x, ph), math_fidelity) * np.float32(1 / x.shape[1])) >> 16).astype(np.uint16)   # SFPU store truncates
    r = bf16_rne((1 / np.sqrt(f32(fpu_add(ms, bf16_rne(np.float32([eps])))).astype(np.float64))).astype(np.float32))
    y = fpu_mul(x, np.broadcast_to(r[:, None], x.shape), ph)
    return y if weight is None else fpu_mul(y, np.broadcast_to(weight, x.shape), ph)

def softmax(x, math_fidelity, exp_table, numeric_stable=True):
    """(M,K) bits; bfloat16 destination, math_approx_mode=False.  exp_table: ttnn.exp for all 65536 bfloat16 patterns"""
    ph = PHASES[math_fidelity]
    if numeric_stable:
        mx = np.take_along_axis(x, np.argmax(f32(x), -1)[:, None], -1)
        x = fpu_add(x, mx, subtract=True)
    e = exp_table[x]
    s = pack_bf16(bits32(row_sum(e, math_fidelity)).astype(np.int64), False)
    r = bf16_rne((1 / f32(s).astype(np.float64)).astype(np.float32))
    return fpu_mul(e, np.broadcast_to(r[:, None], x.shape), ph)

def exp_approx(v):
    """The approximate exponential of attention and of softmax with math_approx_mode=True; float32 in, float32 out.
    (A bfloat16 destination then keeps the upper 16 bits: truncation.)"""
    z = np.float32(256 / np.log(2)) * np.maximum(np.asarray(v, np.float32), np.float32(-88.5)) + np.float32(127 * 256 - 11.2)
    u = np.floor(np.clip(z.astype(np.float64), 0, 65535) + 0.5).astype(np.int64)
    return (u << 15).astype(np.uint32).view(np.float32)
