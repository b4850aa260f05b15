"""The gated delta rule of linear attention, a token at a time (decode) or in chunks (prefill).

Source    ttnn 0.81.1: the recorded contract and vectors; refusals asked one by one
"""

from __future__ import annotations

import torch

from ... import numerics
from ...config import WormholeComputeKernelConfig
from ...dtypes import Layout, cpp, float32
from ...enums import Named
from ...errors import DeviceRejects, NotEmulated
from ...launch import keep, launch, on_device
from ...memory import DRAM_MEMORY_CONFIG, BufferType, MemoryConfig
from ...numerics import delta_rule
from ...op import op, refuse_unmodelled
from ...shape import TILE, Shape
from ...tensor import Tensor, spec
from ..data_movement.reshape import tile_map_bytes

RECURRENT, CHUNKED = (
    "ttnn.transformer.fused_recurrent_gated_delta_rule",
    "ttnn.transformer.chunk_gated_delta_rule",
)
#: Under which a head's length is taken as 0, where the chunked form normalises by itself (flash-linear-attention's).
_EPSILON = 1e-6


class ChunkGdnWyInverse(Named):
    """How a chunk's system of equations is solved; the value is the same here."""

    AUTO = 0
    HORNER = 1
    FORWARD_SUBSTITUTION = 2


def _want(holds: bool, reason: str, hint: str | None = None) -> None:
    if not holds:
        raise DeviceRejects(reason, hint)


def _by_heads(t: torch.Tensor, heads: int | None = None) -> torch.Tensor:
    """[B, T, H, ...] -> [B * heads, T, ...] in float32; a head of keys serves as many heads of values as there are."""
    t = t.to(torch.float32).transpose(1, 2)
    if heads is not None:
        t = t.repeat_interleave(heads // t.shape[1], 1)
    return t.flatten(0, 1)


def _sizes(q: Tensor, v: Tensor) -> tuple[int, int, int, int, int, int]:
    for t in (q, v):
        _want(len(t.spec.shape) > 3, f"ShapeBase[] index out of range. 3 not in [-4, {len(t.spec.shape)})")
    (batch, tokens, heads, width), (value_heads, value_width) = q.spec.shape, v.spec.shape[2:]
    return batch, tokens, heads, width, value_heads, value_width


def _check_state(name: str, state: Tensor | None, shape: tuple) -> None:
    if state is None:
        return
    _want(on_device(state).layout is Layout.TILE, f"{name}: initial_state must be TILE layout")
    _want(
        state.spec.shape.volume() >= torch.Size(shape).numel(),
        "MeshBuffer must be large enough to hold the tensor.",
        f"the state is {state.spec.shape}, not {list(shape)}",
    )
    if tuple(state.spec.shape) != shape:
        raise NotEmulated(f"{name}: an initial state {state.spec.shape} for {list(shape)}")


@op(RECURRENT)
def fused_recurrent_gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, *, scale: float | None = None,
    initial_state: Tensor | None = None, initial_state_block_idx: Tensor | None = None,
    output_final_state: bool = False, output_per_token_state: bool = False, use_qk_l2norm: bool = False,
    memory_config: MemoryConfig | None = None, compute_kernel_config: WormholeComputeKernelConfig | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """(outputs, state) of the gated delta rule, token by token: S = exp(g) S; S += k (beta (v - k S)); o = scale q S.

    Shapes    q and k [B, T, H, K], v [B, T, HV, V], g and beta [B, T, HV], state [B, HV, K, V] -> [B, T, HV, V] and, if
              asked for, the last state or those after every token [B, T, HV, K, V]
    Dtypes    any; float32 comes out
    Layout    any of q to beta; the state TILE, and so are the results
    Numerics  HiFi4, an fp32 destination
    Raises    heads that do not divide, K or V that are no multiples of 32, more heads than cores
    Differs   the ring of states (`initial_state_block_idx`) has no model
    Source    recorded contract and vectors, op `ttnn.transformer.fused_recurrent_gated_delta_rule`
    """
    name = "fused_recurrent_gated_delta_rule"
    inputs = [on_device(t) for t in (q, k, v, g, beta)]
    _want(not use_qk_l2norm, f"{name}: use_qk_l2norm not done here; L2-normalize q/k on host")
    batch, tokens, heads, width, value_heads, value_width = _sizes(q, v)
    _want(value_heads % heads == 0, f"HV ({value_heads}) must be divisible by H ({heads})")
    for t in (g, beta):
        _want(
            len(t.spec.shape) == 3,
            "The number of dimensions in the tensor input does not match the length of the desired ordering",
        )
    for t in (k, v, g, beta):
        _want(
            tuple(t.spec.shape[:2]) == (batch, tokens),
            "Attempting to reshape between two shapes with different volumes",
            f"{t.spec.shape} beside q {q.spec.shape}",
        )
    for what, size in (("key_dim", width), ("value_dim", value_width)):
        _want(size >= TILE and size % TILE == 0, f"{name}: {what} must be a non-zero multiple of 32, got {size}")
    _want(
        compute_kernel_config is None or compute_kernel_config.fp32_dest_acc_en,
        f"{name}: requires fp32_dest_acc_en (the recurrent state is carried in fp32 DST)",
    )
    if initial_state_block_idx is not None:
        _want(output_per_token_state, f"{name}: initial_state_block_idx requires output_per_token_state")
        _want(initial_state is not None, f"{name}: initial_state_block_idx requires initial_state (the ring)")
        refuse_unmodelled(RECURRENT, initial_state_block_idx=initial_state_block_idx)
    shape = (batch, value_heads, width, value_width)
    _check_state(name, initial_state, shape)
    total, cores = batch * value_heads, q.buffer.device.chip.cores
    _want(total <= cores, f"num_heads {total} exceeds compute cores {cores}")
    memory = memory_config or DRAM_MEMORY_CONFIG
    made = [spec((batch, tokens, value_heads, value_width), float32, Layout.TILE, memory)]
    if output_per_token_state:
        made.append(spec((batch, tokens, *shape[1:]), float32, Layout.TILE, memory))
    elif output_final_state:
        made.append(spec(shape, float32, Layout.TILE, memory))
    factor = width**-0.5 if scale is None else scale

    def compute(q, k, v, g, beta, state=None):
        q, k = (_by_heads(t, value_heads) for t in (q, k))
        v, g, beta = (_by_heads(t) for t in (v, g, beta))
        state = torch.zeros(shape).flatten(0, 1) if state is None else state.to(torch.float32).flatten(0, 1)
        o, states = delta_rule.recurrent(q * factor, k, v, g, beta, state, numerics.mode() == "exact")
        o = o.reshape(batch, value_heads, tokens, value_width).transpose(1, 2).contiguous()
        if len(made) == 1:
            return o
        if not output_per_token_state:
            return o, states[:, -1].reshape(shape)
        return o, states.reshape(batch, value_heads, tokens, width, value_width).transpose(1, 2).contiguous()

    inputs = inputs if initial_state is None else [*inputs, initial_state]
    if tokens % TILE:  # g and beta are reshaped inside, whose map stays with the program (ttnn 0.81.1: bytes asked)
        old, new = Shape((batch, value_heads, tokens)), Shape((total, tokens))
        device, place = g.buffer.device, g.spec.memory_config
        keep(
            device, ("reshape", g.dtype, old, place, new, place), BufferType.DRAM, tile_map_bytes(old, new, device.chip)
        )
    flops = 7 * total * tokens * width * value_width
    out = launch(RECURRENT, inputs, made if len(made) > 1 else made[0], compute, flops=flops)
    return tuple(out) if len(made) > 1 else (out, None)


@op(CHUNKED)
def chunk_gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, *, scale: float | None = None,
    initial_state: Tensor | None = None, output_final_state: bool = False, chunk_size: int = 64,
    use_qk_l2norm: bool = False, output_head_major: bool = False, program_config=None,
    wy_inverse: ChunkGdnWyInverse = ChunkGdnWyInverse.AUTO, memory_config: MemoryConfig | None = None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, eye: Tensor | None = None,
    tril: Tensor | None = None, ones: Tensor | None = None, masks: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """(outputs, last state if asked for) of the gated delta rule over a prompt, in chunks of 32 or 64 tokens.

    Of q, k and v with all heads side by side in the last dim, q and k are normalised here.

    Shapes    q and k [B, T, H, K] or [B, T, H * K], v [B, T, HV, V] or [B, T, HV * V], g and beta [B, T, HV], state
              [B, HV, K, V] -> [B, T, HV, V] (with `output_head_major` [B * HV, T, V]) and the state
    Dtypes    any, q, k and v cast to bfloat16; float32 comes out
    Layout    TILE; the outputs ROW_MAJOR, or with `output_head_major` TILE
    Raises    heads that do not divide, other chunks, side by side other chunks than 32 or a rest of T, other arithmetic
              than HiFi4 with an fp32 destination
    Differs   computed in fp32; the roundings of the library's chunks were not recorded
    Source    recorded contract, op `ttnn.transformer.chunk_gated_delta_rule`; its documentation; refusals asked
    """
    inputs, name = [on_device(t) for t in (q, k, v, g, beta)], "chunk_gated_delta_rule"
    refuse_unmodelled(CHUNKED, program_config=program_config)
    _want(not use_qk_l2norm, f"{name}: use_qk_l2norm not yet supported; pre-normalize q/k on host")
    flat = len(q.spec.shape) == 3
    if flat:
        batch, tokens, across = q.spec.shape
        value_heads = g.spec.shape[-1]
        value_width = v.spec.shape[-1] // value_heads
        width, heads = value_width, across // value_width
    else:
        batch, tokens, heads, width, value_heads, value_width = _sizes(q, v)
    _want(value_heads % heads == 0, f"HV ({value_heads}) must be divisible by H ({heads})")
    for label, t in (("g", g), ("beta", beta)):
        _want(
            tuple(t.spec.shape) == (batch, tokens, value_heads),
            f"{name}: {label} must be [B, T, HV] = [{batch}, {tokens}, {value_heads}], got Shape({list(t.spec.shape)})",
        )
    rest = -tokens % chunk_size if chunk_size > 0 else 0
    if flat:
        _want(rest == 0, f"OPT-A flat v requires T ({tokens}) to be a multiple of chunk_size ({chunk_size})")
        _want(chunk_size == TILE, "OPT-A flat q/k needs the in-kernel norm (chunk_size == 32)")
    if rest and any(t.layout is not Layout.TILE for t in inputs[:3]):
        raise DeviceRejects("ttnn.concat: expected all input tensors to be in tile layout", "q, k and v are padded")
    config = compute_kernel_config
    _want(
        config is None
        or (config.math_fidelity.name == "HiFi4" and config.fp32_dest_acc_en and not config.math_approx_mode),
        f"{name} runs HiFi4 with fp32 destination accumulation and no approx mode on every path (its recurrent state "
        f"and WY inverse are fp32); compute_kernel_config asked for {config}",
    )
    _want(
        chunk_size in (TILE, 2 * TILE),
        f"chunk_gdn: chunk_size must be 32 or 64 (got {chunk_size})",
    )
    if wy_inverse is ChunkGdnWyInverse.FORWARD_SUBSTITUTION:
        _want(
            chunk_size == TILE,
            "chunk_gdn: the SFPU WY-inverse solve (wy_inverse=FORWARD_SUBSTITUTION) needs chunk_size == 32 "
            f"(got {chunk_size})",
        )
        _want(
            "chunk_gdn FORWARD_SUBSTITUTION" not in q.buffer.device.chip.missing,
            "chunk_gdn: the SFPU WY-inverse solve (wy_inverse=FORWARD_SUBSTITUTION) is Blackhole-only",
        )
    for label, t in zip(("q", "k", "v", "g", "beta"), inputs):
        _want(t.layout is Layout.TILE, f"chunk_gdn: {label} must be TILE layout", f"it is {cpp(t.layout)}")
    shape = (batch, value_heads, width, value_width)
    _check_state("chunk_gdn", initial_state, shape)
    for what, size in (("key_dim", width), ("val_dim", value_width)):
        _want(size % TILE == 0, f"{what} must be a multiple of 32", f"it is {size}")
    memory = memory_config or DRAM_MEMORY_CONFIG
    if output_head_major:
        first = spec((batch * value_heads, tokens, value_width), float32, Layout.TILE, memory)
    else:
        first = spec((batch, tokens, value_heads, value_width), float32, Layout.ROW_MAJOR, memory)
    made = [first, spec(shape, float32, Layout.TILE, memory)] if output_final_state else first
    factor = width**-0.5 if scale is None else scale

    def compute(q, k, v, g, beta, state=None):
        q, k, v = (t.to(torch.bfloat16).to(torch.float32) for t in (q, k, v))
        if flat:
            q, k, v = (t.unflatten(-1, (-1, value_width)) for t in (q, k, v))
            q, k = (t * (t.square().sum(-1, keepdim=True) + _EPSILON).rsqrt() for t in (q, k))
        q, k = (_by_heads(t, value_heads) for t in (q, k))
        rows = [q * factor, k, *(_by_heads(t) for t in (v, g, beta))]
        rows = [torch.nn.functional.pad(t, (0, 0, 0, rest) if t.dim() == 3 else (0, rest)) for t in rows]
        state = torch.zeros(shape).flatten(0, 1) if state is None else state.to(torch.float32).flatten(0, 1)
        o, state = delta_rule.chunked(*rows, state, chunk_size)
        o = o[:, :tokens]
        if not output_head_major:
            o = o.reshape(batch, value_heads, tokens, value_width).transpose(1, 2)
        return (o.contiguous(), state.reshape(shape)) if output_final_state else o.contiguous()

    inputs = inputs if initial_state is None else [*inputs, initial_state]
    flops = 4 * batch * value_heads * tokens * (width + chunk_size) * value_width
    out = launch(CHUNKED, inputs, made, compute, flops=flops)
    return tuple(out) if output_final_state else (out, None)
