"""The exact numerics: bit for bit the recorded device, and the oracle on random operands."""

import collections

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ttnn_emulator as ttnn
from tests.numerics import fpu_reference as oracle
from tests.numerics import recorded
from ttnn_emulator import chips, errors, numerics
from ttnn_emulator.numerics import exact, flash_values, fpu, matrix_unit, rounding, rules, unary, vector

FILES = (
    "matmul.npz", "eltwise.npz", "unary.npz", "cast.npz", "move.npz", "norm.npz", "softmax.npz", "rope.npz", "sdpa.npz",
    "sdpa_decode.npz",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _exact():
    with numerics.use("exact"):
        yield


def patterns(t):
    return t.contiguous().view(torch.int16)


@pytest.mark.parametrize("file", FILES)
def test_recorded_bits(file):
    """Every recorded case, every output bit."""
    cases = recorded.cases(file)
    counts = {case.id: case.differing() for case in cases}
    wrong = {name: f"{n} of {of}" for name, (n, of) in counts.items() if n}
    assert not wrong, f"bits differ in {len(wrong)} of {len(cases)} cases: {wrong}"


def test_all_recorded_cases_are_counted():
    assert len(recorded.cases(*FILES)) == 278
    assert len(recorded.newer()) == 739


@pytest.fixture
def on_blackhole():
    before = chips.machine().name
    yield chips.use("p150")
    chips.use(before)


def test_blackhole_bits(on_blackhole):
    """Every recorded case of Blackhole, every output bit; where its reciprocals are estimates, not Wormhole's."""
    cases = recorded.blackhole()
    assert len(cases) == 286
    counts = {case.id: case.differing() for case in cases}
    wrong = {name: f"{n} of {of}" for name, (n, of) in counts.items() if n}
    assert not wrong, f"bits differ in {len(wrong)} of {len(cases)} cases: {wrong}"


def test_the_estimate_of_a_reciprocal():
    """All 7-bit significands: within the published bounds, of x alone, and compiled alike."""
    x = (torch.arange(0x7F80, dtype=torch.int32) << 16 | 0x1234).view(torch.float32)
    y = vector.reciprocal(x, 0)
    usual = (x >= 2.0**-126) & (x < 2.0**126)
    ratio = (y.double() * x.double())[usual]
    assert ratio.min() > 0.9944
    assert ratio.max() < 1.0054
    assert bool((y[~usual & (x < 1)] == torch.inf).all())
    assert bool((y[x >= 2.0**126] == 0).all())
    assert vector.reciprocal(torch.tensor([1.0, -1.0]), 0).tolist() == [0.99609375, -0.99609375]
    compiled = torch.empty_like(x)
    flash_values.reciprocal(x.numpy(), 0, compiled.numpy())
    assert torch.equal(compiled, y)


def test_a_function_that_blackhole_was_not_asked_says_so(on_blackhole, monkeypatch):
    monkeypatch.setattr(errors, "_said", set())
    with pytest.warns(ttnn.Untested, match=r"ttnn.erfc by another chip's table"):
        unary.look_up(torch.ones(1, dtype=torch.bfloat16), "erfc")


LESS_COMMON = sorted({case.file for case in recorded.newer()})


def differing(cases):
    """Of the cases whose op the emulator has: id -> how much differs; and the ids of the others."""
    wrong, lacking = {}, set()
    for case in cases:
        try:
            n, of = case.differing()
        except ttnn.NotEmulated as e:
            if not str(e).startswith(f"{case.entry['op']} has no model in the emulator"):
                raise
            lacking.add(case.id)
        else:
            wrong |= {case.id: f"{n} of {of}"} if n else {}
    return wrong, lacking


@pytest.mark.parametrize("file", LESS_COMMON)
def test_recorded_bits_of_less_common_calls(file):
    """Of each op's cases every third; what has no rule is known, and comes off that list where it gets one."""
    by_op = collections.defaultdict(list)
    for case in recorded.newer():
        if case.file == file:
            by_op[case.op].append(case)
    cases = [case for of_op in by_op.values() for case in of_op[::3]]
    wrong, lacking = differing(cases)
    assert set(wrong) == {case.id for case in cases} & set(recorded.known()) - lacking, wrong


def test_recorded_float32_quotients_and_large_remainders():
    names = {"div_fp32", "remainder_wide", "fmod_wide"}
    cases = [case for case in recorded.newer() if case.id in names]
    assert len(cases) == 3
    assert differing(cases) == ({}, set())


@pytest.mark.slow
def test_all_recorded_bits_of_less_common_calls():
    wrong, lacking = differing(recorded.newer())
    assert set(wrong) == set(recorded.known()) - lacking, wrong


# ---------------------------------------------------------------- the oracle on random operands


def random_bits(rng, shape, spread):
    """bfloat16 patterns of normal values with exponents spread by +-2^spread, some zero, some denormal."""
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-spread, spread + 1, shape))
    x = oracle.bf16_rne(x.astype(np.float32))
    x[rng.random(shape) < 0.05] = 0
    x[rng.random(shape) < 0.02] = 0x8003
    return x


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from(sorted(fpu.PHASES)), st.booleans(), st.integers(1, 5), st.integers(1, 4),
    st.integers(1, 70), st.sampled_from([0, 3, 20, 60]), st.booleans(), st.integers(0, 2),
)  # fmt: skip
def test_matrix_unit_is_the_oracle(seed, fidelity, fp32, m, tiles, n, spread, transposed, block):
    rng = np.random.default_rng(seed)
    x, w = random_bits(rng, (m, 32 * tiles), spread), random_bits(rng, (32 * tiles, n), spread)
    block = block if block and tiles % block == 0 else 0
    want = oracle.matmul(x, w, fidelity, fp32, bool(block), block or None, raw=True)
    stored = np.ascontiguousarray(w.T).T if transposed else w
    got = matrix_unit.matmul(x, stored, fidelity, fp32, block)
    np.testing.assert_array_equal(got.view(np.uint32).astype(np.int64), want)


def test_matrix_unit_rounds_twice_where_the_hardware_does():
    """A group sum 14 or 15 binades below the destination is rounded to 24 bits and then to 11: 8191 / 16384 becomes
    1."""
    rng = np.random.default_rng(0)
    x, w = np.full((1, 64), 0x3F80, np.uint16), np.zeros((64, 48), np.uint16)
    w[0] = 0x3F80  # the destination: 1
    for k in range(16, 24):
        w[k] = (0x3F80 + rng.integers(0, 128, 48) - (rng.integers(12, 16, 48) << 7)).astype(np.uint16)
    for fp32 in (False, True):
        want = oracle.matmul(x, w, "HiFi2", fp32, raw=True)
        np.testing.assert_array_equal(matrix_unit.matmul(x, w, "HiFi2", fp32).view(np.uint32).astype(np.int64), want)


def extremes(count=1 << 14):
    rng = np.random.default_rng(7)
    a, b = (rng.integers(0, 65536, count).astype(np.uint16) for _ in range(2))
    near = (a & 0x7F80 | b & 0x807F).astype(np.int64) + 128 * rng.integers(-12, 13, count)  # exponents that interact
    b[: count // 2] = near[: count // 2].astype(np.uint16)
    b[:64] = a[:64] ^ 0x8000
    return a, b


def bf16(u):
    return torch.from_numpy(u.view(np.int16).copy()).view(torch.bfloat16)


@pytest.mark.parametrize("name", ["add", "mul LoFi", "mul HiFi2", "mul HiFi3", "mul HiFi4"])
def test_element_wise_fpu_is_the_oracle(name):
    """Compiled and as torch operations (what other devices run), over all kinds of patterns."""
    a, b = extremes()
    words = [rules.Tensors(torch.from_numpy(t.astype(np.int32) << 16)) for t in (a, b)]
    if name == "add":
        want, got, tensors = oracle.fpu_add(a, b), fpu.add(bf16(a), bf16(b)), rules.add(*words)
    else:
        fidelity = name.split()[1]
        phases = fpu.PHASES[fidelity]
        want, got = oracle.fpu_mul(a, b, phases), fpu.mul(bf16(a), bf16(b), fidelity)
        tensors = rules.mul(*words, phases)
    np.testing.assert_array_equal(patterns(got).numpy().view(np.uint16), want)
    np.testing.assert_array_equal((tensors.value.numpy().view(np.uint32) >> 16).astype(np.uint16), want)


@pytest.mark.parametrize(
    "shapes", [((3, 5), (5,)), ((2, 1, 7), (1, 4, 1)), ((1, 1, 32, 64), (1, 1, 32, 1)), ((17,), (17,))]
)
def test_element_wise_fpu_broadcasts(shapes):
    a, b = (torch.randn(s).bfloat16() for s in shapes)
    got, (x, y) = fpu.add(a, b), torch.broadcast_tensors(a, b)
    want = oracle.fpu_add(*(patterns(t).numpy().view(np.uint16) for t in (x, y)))
    np.testing.assert_array_equal(patterns(got).numpy().view(np.uint16), want)


def test_row_sum_is_a_product_with_ones():
    x = torch.randn(37, 96).bfloat16()
    for fidelity in ("HiFi2", "HiFi4"):
        for fp32 in (False, True):
            want = oracle.row_sum(patterns(x).numpy().view(np.uint16), fidelity, fp32)
            np.testing.assert_array_equal(fpu.row_sum(x, fidelity, fp32).float().flatten().numpy(), want)


def test_repeated_rows_change_nothing():
    """Padding rows are computed once; the result is that of every row by itself."""
    x = torch.zeros(1, 1, 32, 64).bfloat16()
    x[0, 0, :2] = torch.randn(2, 64)
    w, config = torch.randn(64, 40).bfloat16(), numerics.default_config("matmul")
    whole = exact.matmul(x, w, config, dtype="bfloat16", block_w=2)
    each = torch.cat([exact.matmul(x[:, :, i : i + 1], w, config, dtype="bfloat16", block_w=2) for i in range(32)], 2)
    assert torch.equal(whole, each)


@pytest.mark.parametrize("dtype", ["bfloat8_b", "bfloat4_b"])
def test_packer_is_the_oracle(dtype):
    u = random_bits(np.random.default_rng(3), (64, 64), 6)
    u[np.abs(u & 0x7FFF) < 0x80] = 0
    got = rounding.pack(bf16(u), dtype)
    want = oracle.pack_bfp8(u) if dtype == "bfloat8_b" else oracle.pack_bfp4(u)
    np.testing.assert_array_equal(patterns(got).numpy().view(np.uint16), want)


def test_packer_to_bfloat16_flushes_and_has_no_nan():
    x = torch.tensor([1e-40, -1e-40, -0.0, float("nan"), float("inf"), 1 + 2.0**-8, -(1 + 2.0**-8), 3.0])
    got = rounding.pack(x, "bfloat16").float()
    assert got.tolist() == [0, 0, 0, float("inf"), float("inf"), 1 + 2.0**-7, -(1 + 2.0**-7), 3.0]
    assert not torch.signbit(got[:3]).any()


def test_tables_cover_every_bfloat16():
    for name in unary.recorded():
        assert unary.table(name).shape == (65536,), name
    x = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    finite = torch.isfinite(x) & (x.abs() > 1e-37)
    assert torch.equal(exact.unary("neg", x, "bfloat16")[finite], -x[finite])


def test_unknown_unary_is_refused():
    with pytest.raises(NotImplementedError, match="wobble"):
        exact.unary("wobble", torch.zeros(4).bfloat16(), "bfloat16")


# ---------------------------------------------------------------- attention beyond the recordings


def attention_inputs(b=1, nq=4, nk=2, s=64, hd=64):
    g = torch.Generator().manual_seed(1)
    return (torch.randn(b, n, s, hd, generator=g).bfloat16() for n in (nq, nk, nk))


def close(got, want, limit):
    error = float((got.double() - want.double()).norm() / want.double().norm())
    assert error < limit, error


@pytest.mark.parametrize("chunk", [32, 64, 128])
def test_attention_with_a_short_sequence_and_other_chunks(chunk):
    q, k, v = attention_inputs(s=100)
    config = numerics.ComputeConfig("HiFi4", False, True, False)
    got = exact.attention(q, k, v, is_causal=True, config=config, exp_approx=False, q_chunk=chunk, k_chunk=chunk)
    k, v = (t.repeat_interleave(2, 1).double() for t in (k, v))
    close(got, torch.nn.functional.scaled_dot_product_attention(q.double(), k, v, is_causal=True), 5e-3)


def test_attention_mask_and_window_hide_keys():
    q, k, v = attention_inputs()
    config = numerics.ComputeConfig("HiFi4", False, True, False)
    rows, cols = torch.arange(64)[:, None], torch.arange(64)
    hidden = (cols > rows) | (cols <= rows - 20)
    window = exact.attention(q, k, v, is_causal=True, sliding_window=20, config=config, exp_approx=False)
    mask = torch.zeros(1, 1, 64, 64).masked_fill(hidden, -torch.inf).bfloat16()
    masked = exact.attention(q, k, v, mask=mask, config=config, exp_approx=False)
    close(masked, window.double(), 2e-3)  # an added mask reads the scores back with 11 significand bits
    k, v = (t.repeat_interleave(2, 1).double() for t in (k, v))
    close(window, torch.nn.functional.scaled_dot_product_attention(q.double(), k, v, attn_mask=mask.double()), 5e-3)


def test_decode_users_are_independent_and_skipped():
    g = torch.Generator().manual_seed(2)
    q = torch.randn(1, 3, 8, 64, generator=g).bfloat16()
    k, v = (torch.randn(3, 2, 512, 64, generator=g).bfloat16() for _ in range(2))
    config = numerics.default_config("attention_decode")
    together = exact.attention_decode(q, k, v, [40, -1, 500], config=config, cores=4)
    assert not together[0, 1].any()
    for user, position in ((0, 40), (2, 500)):
        at = slice(user, user + 1)
        alone = exact.attention_decode(q[:, at], k[at], v[at], [position], config=config, cores=4)
        assert torch.equal(alone[0, 0], together[0, user])


@pytest.mark.parametrize("cores", [1, 2, 3, 8])
def test_decode_over_many_chunks_and_cores(cores):
    """Several chunks are as the kernel's source says, not recorded: only their accuracy is checked."""
    g = torch.Generator().manual_seed(3)
    q = torch.randn(1, 1, 4, 64, generator=g).bfloat16()
    k, v = (torch.randn(1, 2, 400, 64, generator=g).bfloat16() for _ in range(2))
    config = numerics.ComputeConfig("HiFi4", False, True, False)
    got = exact.attention_decode(q, k, v, [350], config=config, cores=cores, k_chunk=64, exp_approx=False)
    keys, values = (t[:, :, :351].repeat_interleave(2, 1).double() for t in (k, v))
    want = torch.nn.functional.scaled_dot_product_attention(q.transpose(1, 2).double(), keys, values).transpose(1, 2)
    close(got, want, 3.5e-2)  # the approximate exponential of half tiles
