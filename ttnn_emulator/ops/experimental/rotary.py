"""Rotary position embeddings: the two halves of a head are the pairs (HF), or neighbours are (Meta)."""

from __future__ import annotations

import functools

import torch

from ... import numerics
from ...config import resolve
from ...dtypes import FLOATS, NAME, Layout, bfloat16, cpp
from ...errors import DeviceRejects, NotEmulated
from ...launch import launch, on_device, output_memory, unmodelled
from ...memory import BufferType, MemoryConfig, TensorMemoryLayout
from ...numerics.rows import Slices
from ...op import op
from ...shape import TILE, at, round_up
from ...tensor import Tensor, spec

_DEFAULT = numerics.default_config("rotary")


def padded_to(v: torch.Tensor, rows: int, width: int) -> torch.Tensor:
    """The last two dims with their zero padding."""
    if v.shape[-2] == rows and v.shape[-1] == width:
        return v
    return torch.nn.functional.pad(v, (0, width - v.shape[-1], 0, rows - v.shape[-2]))


def _heads_together(compute):
    """A rotation of the heads of several chips as one: heads are in dim 1 or 2, and turn all alike."""

    def together(xs, cs, ss):
        if xs[0].dim() != 4 or any(c is not cs[0] for c in cs) or any(s is not ss[0] for s in ss):
            return None
        if xs[0].numel() * len(xs) > SMALL:
            return None
        dim = 2 if cs[0].shape[1] > 1 else 1  # a position per user, or per row
        parts = torch.split(compute(torch.cat(xs, dim), cs[0], ss[0]), xs[0].shape[dim], dim)
        return [part.contiguous() for part in parts]

    return together


#: Elements up to which a call costs more than its work.
SMALL = 1 << 20
#: In decode every operand has a slice per user.
_USERS = Slices((-3, -3, -3), -3)


@op("ttnn.experimental.rotary_embedding")
def rotary_embedding(
    input_tensor: Tensor, cos_cache: Tensor, sin_cache: Tensor, token_index: int | None = None, *,
    memory_config: MemoryConfig | None = None, compute_kernel_config=None,
) -> Tensor:  # fmt: skip
    """x * cos + rotate_half(x) * sin, positions along dim -2; with `token_index` every row is at that position.

    Shapes    x [..., S, hd], cos and sin [1, 1, L, hd] -> x with its last two dims padded to tiles: S = 20 comes out
              as 32
    Dtypes    any; as x
    Layout    TILE; ROW_MAJOR operands are tilized
    Numerics  two FPU products in four phases and a sum, each rounded to bfloat16, whatever the config (recorded)
    Raises    head dims other than 32 or multiples of 64; tables that are too short; WIDTH_SHARDED
    Differs   integer operands are accepted by the library; here their result has no contents
    Source    recorded contract, op `ttnn.experimental.rotary_embedding`
    """
    x, cos, sin = on_device(input_tensor), cos_cache, sin_cache
    if token_index is not None and token_index < 0:
        raise TypeError(
            "ttnn.experimental.rotary_embedding(): incompatible function arguments.\n"
            f"  got    token_index = {token_index}\n  want   an int that is not negative"
        )
    if x.layout is Layout.TILE:
        padded = x.spec.padded_shape
    else:
        padded = spec(x.spec.shape, x.dtype, Layout.TILE).padded_shape
    width, rows = padded[-1], padded[-2]
    if width != TILE and width % (2 * TILE):
        raise DeviceRejects(
            f"Input X dimension ({width}) must be either 32 (single tile) or divisible by 64 (rotate_half midpoint "
            "must "
            "align with a tile boundary)."
        )
    if cos.spec.shape != sin.spec.shape:
        raise DeviceRejects(
            "Cosine and Sine cache dimensions must match. "
            f"Cos cache dimensions: {cos.spec.shape}, Sin cache dimensions: {sin.spec.shape}."
        )
    table = spec(cos.spec.shape, cos.dtype, Layout.TILE).padded_shape
    if table[0] != 1 or (len(table) > 1 and table[1] != 1) or table[-1] != width:
        raise DeviceRejects(
            f"Cosine cache dimensions must match input dimensions. Expected (1, 1, {width}), but got "
            f"{cos.spec.padded_shape}."
        )
    length = table[-2]
    if token_index is not None:
        if length <= token_index:
            raise DeviceRejects(
                "Cosine cache must cover the token index. "
                f"Token index: {token_index}, Cos cache sequence length: {length}."
            )
    elif length < rows:
        raise DeviceRejects(
            "Cosine cache must cover the input sequence length. "
            f"Input sequence length: {rows}, Cos cache sequence length: {length}."
        )
    if cos.dtype is not sin.dtype:
        raise DeviceRejects("Cos and Sin dtypes must match", f"{cpp(cos.dtype)} and {cpp(sin.dtype)}")
    held = x.spec.memory_config
    if held.is_sharded():
        if held.memory_layout is TensorMemoryLayout.WIDTH_SHARDED:
            raise DeviceRejects(
                f"Input tensor memory layout must not be WIDTH_SHARDED but got {cpp(held.memory_layout)}",
                "go through DRAM, or leave out the reshape that made it so",
            )
        if held.shard_spec.shape[1] != width:
            raise DeviceRejects(
                f"Input tensor shard width ({held.shard_spec.shape[1]}) must equal padded width ({width})"
            )
    out = spec(padded, x.dtype, Layout.TILE, output_memory(x, memory_config))
    inputs = (x, on_device(cos), on_device(sin))
    if any(t.dtype not in FLOATS for t in inputs):
        return unmodelled(inputs, out)
    resolve(compute_kernel_config, _DEFAULT)
    dtype = NAME[x.dtype]
    span = slice(0, rows) if token_index is None else slice(token_index, token_index + 1)

    def compute(v, c, s):
        v = padded_to(v, rows, width)
        if token_index is None and c.shape[-2] < rows:
            c, s = padded_to(c, rows, c.shape[-1]), padded_to(s, rows, s.shape[-1])
        c, s = c[..., span, :], s[..., span, :]
        if c.shape[-1] != width:
            c, s = padded_to(c, c.shape[-2], width), padded_to(s, s.shape[-2], width)
        return numerics.now().rotary(v, c, s, _DEFAULT, dtype)

    return launch(
        "ttnn.experimental.rotary_embedding", inputs, out, compute, flops=3 * padded.volume(),
        together=_heads_together(compute),
    )  # fmt: skip


@op("ttnn.experimental.rotary_embedding_hf")
def rotary_embedding_hf(
    input_tensor: Tensor, cos_cache: Tensor, sin_cache: Tensor, *, is_decode_mode: bool = False,
    memory_config: MemoryConfig | None = None, compute_kernel_config=None,
) -> Tensor:  # fmt: skip
    """x * cos + rotate_half(x) * sin, with one position per row (prefill) or per user (decode).

    Shapes    prefill x [B, n, S, hd], cos and sin [1, 1, L, hd]; decode x [1, B, n, hd], cos and sin [1, B, 1 or 32,
              hd]; the shape of x comes out
    Dtypes    floats; as x
    Layout    TILE; decode needs x, cos and sin sharded
    Numerics  two FPU products and a sum in the config's fidelity and destination, each rounded to bfloat16
    Source    recorded contract, op `ttnn.experimental.rotary_embedding_hf`
    """
    x, cos, sin = on_device(input_tensor), on_device(cos_cache), on_device(sin_cache)
    if x.layout is not Layout.TILE:
        raise DeviceRejects("Input must be tilized")
    width = x.spec.padded_shape[-1]
    if width != TILE and width % (2 * TILE):
        raise DeviceRejects(
            f"Input X dim ({width}) must be either 32 (single tile) or divisible by 64 (rotate_half midpoint must "
            "align "
            "with a tile boundary)."
        )
    if is_decode_mode:
        for name, t in (("Input", x), ("Cos", cos), ("Sin", sin)):
            if not t.is_sharded():
                raise DeviceRejects(f"{name} must be sharded in decode mode")
    if cos.spec.shape != sin.spec.shape:
        raise DeviceRejects("Cos and Sin shapes must match", f"{cos.spec.shape} and {sin.spec.shape}")
    if cos.spec.padded_shape[-1] != width:
        raise DeviceRejects("Cos dims must match input dims", f"{cos.spec.shape} and {x.spec.shape}")
    if is_decode_mode:
        if at(cos.spec.shape, 1) != at(x.spec.shape, 1):
            raise DeviceRejects("Cos batch dim must match input", f"{cos.spec.shape[1]} users of {x.spec.shape[1]}")
        if memory_config is not None and memory_config.buffer_type is not BufferType.L1:
            raise DeviceRejects("Only L1 buffers can have an associated circular buffer!")
    else:
        if at(cos.spec.shape, 1) != 1:
            raise DeviceRejects("Cos must have batch dim = 1 in prefill mode", f"it has {cos.spec.shape}")
        if cos.spec.shape[-2] < x.spec.shape[-2]:
            raise DeviceRejects(
                "Cos seq_len must be >= input seq_len. "
                f"Input seq_len: {x.spec.shape[-2]}, Cos seq_len: {cos.spec.shape[-2]}."
            )
    out = spec(x.spec.shape, x.dtype, Layout.TILE, output_memory(x, memory_config))
    inputs = (x, cos, sin)
    if any(t.dtype not in FLOATS for t in inputs):
        return unmodelled(inputs, out)
    config, dtype = resolve(compute_kernel_config, _DEFAULT), NAME[x.dtype]
    rows, hd, width = x.spec.shape[-2], x.spec.shape[-1], x.spec.padded_shape[-1]

    def compute(v, c, s):
        # Decode: row 0 of a user's tile holds its position; the kernel broadcasts it over the heads.
        span = slice(0, 1) if is_decode_mode else slice(0, rows)
        c, s = c[..., span, :], s[..., span, :]
        if hd != width:
            v, c, s = (padded_to(t, t.shape[-2], width) for t in (v, c, s))
        y = numerics.now().rotary(v, c, s, config, dtype)
        return y if hd == width else y[..., :hd]

    return launch(
        "ttnn.experimental.rotary_embedding_hf", inputs, out, compute, flops=3 * x.volume(),
        together=_heads_together(compute), rows=_USERS if is_decode_mode else None,
    )  # fmt: skip


@op("ttnn.experimental.rotary_embedding_llama")
def rotary_embedding_llama(
    input_tensor: Tensor, cos_cache: Tensor, sin_cache: Tensor, trans_mat: Tensor, *, is_decode_mode: bool = False,
    memory_config: MemoryConfig | None = None, compute_kernel_config=None,
) -> Tensor:  # fmt: skip
    """x * cos + (x @ trans_mat) * sin: Meta's layout, in which neighbours are a pair and `trans_mat` [32, 32] turns
    them.

    Shapes    prefill x [B, n, S, hd], cos and sin [1, 1, L, hd], trans_mat [1, 1, 32, 32]; decode x [1, B, n, hd], cos
              and sin [1, B, 1 or 32, hd], trans_mat [1, 1, 32 B, 32]; the shape of x comes out
    Dtypes    bfloat16
    Layout    TILE; decode needs all four HEIGHT_SHARDED
    Numerics  the turn is a product of the matrix unit (LoFi and HiFi2 drop x's last bit), then as `rotary_embedding_hf`
    Differs   tables that are shorter than the prompt give a result without contents
    Source    recorded contract, op `ttnn.experimental.rotary_embedding_llama`
    """
    x, cos, sin, turn = (on_device(t) for t in (input_tensor, cos_cache, sin_cache, trans_mat))
    inputs = (x, cos, sin, turn)
    for name, t in zip(("input", "cos", "sin", "trans_mat"), inputs, strict=True):
        if t.layout is not Layout.TILE:
            raise DeviceRejects(f"{name} tensor to rotary embedding must be tilized")
    if any(t.dtype is not bfloat16 for t in inputs):
        raise DeviceRejects("All input tensors must have dtype = bfloat16")
    if is_decode_mode:
        for t in inputs:
            if t.spec.memory_config.memory_layout is not TensorMemoryLayout.HEIGHT_SHARDED:
                raise DeviceRejects("Sharded inputs for RoPE must be HEIGHT_SHARDED.")
    if cos.spec.shape != sin.spec.shape:
        raise DeviceRejects("Cos and Sin dims must match", f"{cos.spec.shape} and {sin.spec.shape}")
    if cos.spec.shape[-1] != x.spec.shape[-1]:
        raise DeviceRejects(
            f"Cos dims must match input dims: cos.spec.shape = {cos.spec.shape}, head_dim = {x.spec.shape[-1]}"
        )
    if x.spec.shape[-1] > 256:
        raise DeviceRejects("Head dim must be less than 256", f"it is {x.spec.shape[-1]}; 256 itself is taken")
    if turn.spec.padded_shape[-1] != TILE:
        raise DeviceRejects("Transformation matrix must have 4th dim equal to TILE_WIDTH", f"it is {turn.spec.shape}")
    if not is_decode_mode and x.is_sharded():
        raise DeviceRejects("Input tensor must be interleaved in prefill mode")
    out = spec(x.spec.shape, x.dtype, Layout.TILE, output_memory(x, memory_config))
    config = resolve(compute_kernel_config, _DEFAULT)
    rows = x.spec.shape[-2]

    if (
        not is_decode_mode and min(cos.spec.shape[-2], sin.spec.shape[-2]) < rows
    ):  # the device reads past the end of the tables
        return unmodelled(inputs, out)

    def compute(v, c, s, m):
        span = slice(0, 1 if is_decode_mode else rows)
        return _by_neighbours(v, c[..., span, :], s[..., span, :], m[0, 0, :TILE, :TILE], config)

    return launch("ttnn.experimental.rotary_embedding_llama", inputs, out, compute, flops=(2 * TILE + 3) * x.volume())


def _by_neighbours(v, c, s, m, config):
    """v * c + (v @ m) * s of values, m [32, 32] on every 32 columns."""
    n, hd = numerics.now(), v.shape[-1]
    if not torch.equal(m, _neighbours(m.device)):
        wide = padded_to(v, v.shape[-2], round_up(hd, TILE))
        turned = n.matmul(wide.unflatten(-1, (-1, TILE)), m, config, dtype="bfloat16", block_w=1).flatten(-2)
        return n.rotary(v, c, s, config, "bfloat16", turned=turned[..., :hd])
    # The same products in HF's order: evens first, then odds.
    v, c, s = (torch.cat([t[..., 0::2], t[..., 1::2]], -1) for t in (v, c, s))
    y = n.rotary(v, c, s, config, "bfloat16", cut=True)
    return torch.stack([y[..., : hd // 2], y[..., hd // 2 :]], -1).flatten(-2)


@op("ttnn.experimental.rotary_embedding_llama_fused_qk")
def rotary_embedding_llama_fused_qk(
    q_input_tensor: Tensor, k_input_tensor: Tensor, cos_cache: Tensor, sin_cache: Tensor, trans_mat: Tensor, *,
    compute_kernel_config=None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`rotary_embedding_llama` in decode of q and k at once, on cores of their own.

    A core turns what it holds by the tables that it holds: usually the first half of the tables is q's, the second k's.

    Shapes    q [1, B, n, hd], k [1, B, m, hd], cos and sin [1, 2 B, 1 or 32, hd], trans_mat [1, 1, 64 B, 32] -> q and k
    Dtypes    bfloat16
    Layout    TILE, all five HEIGHT_SHARDED
    Numerics  as `rotary_embedding_llama`
    Raises    q and k on the same cores, tables and matrices that are not for the users of both
    Differs   tables of another width, or that lie on other cores than q and k, give results without contents
    Source    recorded contract, op `ttnn.experimental.rotary_embedding_llama_fused_qk`; refusals asked one by one
    """
    names = ("Q input", "K input", "Cos", "Sin", "Trans mat")
    inputs = [on_device(t) for t in (q_input_tensor, k_input_tensor, cos_cache, sin_cache, trans_mat)]
    q, k, cos, sin, turn = inputs

    def want(holds: bool, reason: str, hint: str | None = None) -> None:
        if not holds:
            raise DeviceRejects(reason, hint)

    for name, t in zip(names, inputs, strict=True):
        layout = t.spec.memory_config.memory_layout
        want(layout is TensorMemoryLayout.HEIGHT_SHARDED, f"{name} tensor must be HEIGHT_SHARDED.")
        want(t.dtype is bfloat16, f"{name} tensor must be bfloat16", f"it is {cpp(t.dtype)}")
        want(t.layout is Layout.TILE, f"{name} tensor must be in layout Layout::TILE")
    want(
        at(q.spec.shape, 0) == at(k.spec.shape, 0) == 1,
        "rotary_embedding_llama_fused_qk currently only supports decode mode with seq_len=1.",
    )
    hd, users = q.spec.shape[-1], at(q.spec.shape, 1)
    want(hd == k.spec.shape[-1], "Q input tensor and K input tensor must have same head dimensions")
    cores = [list(t.spec.memory_config.shard_spec.grid.cores()) for t in inputs]
    want(not set(cores[0]) & set(cores[1]), "Q and K must not overlap", "shard them over cores of their own")
    want(users == at(k.spec.shape, 1), "Q and K must have the equal batch size")
    want(cos.spec.shape == sin.spec.shape, "Cos and Sin dims must match", f"{cos.spec.shape} and {sin.spec.shape}")
    want(
        at(cos.spec.shape, 1) == 2 * users,
        "Cos and Sin are repeated for Q and K, so they must have the same batch size as the sum of Q and K batch sizes",
    )
    want(
        len(cores[4]) >= len(cores[0]) + len(cores[1]),
        "Transformation matrix is repeated for Q and K must be sharded over core grid of Q and K",
    )
    want(
        tuple(turn.spec.memory_config.shard_spec.shape) == (TILE, TILE),
        "Transformation matrix must be sharded to single tile of shape (32, 32)",
    )
    made = [spec(t.spec.shape, bfloat16, Layout.TILE, t.spec.memory_config) for t in (q, k)]
    if cos.spec.shape[-1] != hd or not {*cores[0], *cores[1]} <= set(cores[2]):
        return tuple(unmodelled(inputs, made))
    config = resolve(compute_kernel_config, _DEFAULT)
    places = [[cores[2].index(core) for core in own[:users]] for own in cores[:2]]

    def compute(q, k, c, s, m):
        c, s = c[..., :1, :], s[..., :1, :]
        m = m.reshape(-1, TILE)[:TILE]
        return tuple(_by_neighbours(v, c[:, own], s[:, own], m, config) for v, own in zip((q, k), places))

    flops = (2 * TILE + 3) * (q.volume() + k.volume())
    return tuple(launch("ttnn.experimental.rotary_embedding_llama_fused_qk", inputs, made, compute, flops=flops))


@functools.cache
def _neighbours(device) -> torch.Tensor:
    """[32, 32]: x @ it is (-x1, x0, -x3, x2, ...)."""
    m = torch.zeros(TILE, TILE, dtype=torch.bfloat16)
    even = torch.arange(0, TILE, 2)
    m[even + 1, even], m[even, even + 1] = -1, 1
    return m.to(device)


@op("ttnn.experimental.rotate_half")
def rotate_half(input: Tensor, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """[-second half, first half] of the last dim.

    Shapes    [..., S, hd], whole tiles in each half; kept
    Dtypes    all; kept
    Raises    widths that are no multiple of 64
    Source    recorded contract, op `ttnn.experimental.rotate_half`
    """
    x = on_device(input)
    width = x.spec.padded_shape[-1]
    if width % (2 * TILE):
        raise DeviceRejects(f"Input X dimension ({width}) must be divisible by 64 for tiling.")
    if x.is_sharded():
        raise DeviceRejects("RotateHalf does not currently support sharding")
    if x.spec.shape[-1] != width:
        raise NotEmulated(
            f"rotate_half of a padded last dim ({x.spec.shape[-1]}, in memory {width}) has no model in the emulator"
        )
    half = width // 2
    out = spec(x.spec.shape, x.dtype, Layout.TILE, output_memory(x, memory_config))
    return launch(
        "ttnn.experimental.rotate_half",
        (x,),
        out,
        lambda v: torch.cat([-v[..., half:], v[..., :half]], -1),
        flops=x.volume(),
    )
