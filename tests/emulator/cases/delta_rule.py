"""The gated delta rule against its recurrence in float64.

The device reads operands with 11 and 10 bits, 2^-10 of each at most, in four steps a token whose errors add up.
"""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T

CUT, CAST = 6e-3, 1e-2  # CAST: q, k and v are bfloat16 in the chunked form, a rounding of 2^-9 of each
RM, FP32 = ttnn.ROW_MAJOR_LAYOUT, ttnn.float32
STEP, CHUNK = "ttnn.transformer.fused_recurrent_gated_delta_rule", "ttnn.transformer.chunk_gated_delta_rule"


def rule(
    q, k, v, g, beta, scale=None, initial_state=None, output_final_state=False, output_per_token_state=False,
    output_head_major=False, **_,
):  # fmt: skip
    if q.dim() == 3:
        q, k, v = (t.unflatten(-1, (-1, v.shape[-1] // g.shape[-1])) for t in (q, k, v))
        q, k = (torch.nn.functional.normalize(t.double(), dim=-1) for t in (q, k))
    q, k, v, g, beta = (t.double() for t in (q, k, v, g, beta))
    ways = v.shape[2] // q.shape[2]
    q, k = (t.repeat_interleave(ways, 2) for t in (q, k))
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    state = torch.zeros(q.shape[0], v.shape[2], q.shape[3], v.shape[3]).double()
    state = state if initial_state is None else initial_state.double()
    outputs, states = [], []
    for t in range(q.shape[1]):
        state = state * g[:, t].exp()[..., None, None]
        new = beta[:, t, :, None] * (v[:, t] - torch.einsum("bhkv,bhk->bhv", state, k[:, t]))
        state = state + k[:, t, ..., None] * new[:, :, None]
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t]))
        states.append(state)
    o = torch.stack(outputs, 1)
    o = o.transpose(1, 2).flatten(0, 1) if output_head_major else o
    if output_per_token_state:
        return o, torch.stack(states, 1)
    return (o, state) if output_final_state else (o, None)


def operands(tokens, heads=2, values=4, width=64, value_width=64, dtype=FP32, flat=False, batch=1):
    """q and k of length about 1, decays a little below 1."""
    generator = torch.Generator().manual_seed(5)
    shapes = (heads, width), (heads, width), (values, value_width)
    made = [torch.randn(batch, tokens, *s, generator=generator) / s[1] ** 0.5 for s in shapes]
    rest = [torch.rand(batch, tokens, values, generator=generator) for _ in range(2)]
    made = [t.flatten(-2) if flat else t for t in made]
    gates = (T(values=-0.2 * rest[0], dtype=FP32), T(values=rest[1], dtype=FP32))
    return (*(T(values=t, dtype=dtype) for t in made), *gates)


STATE = T((1, 4, 64, 64), FP32)
Q, K, V, G, B = operands(8)


CASES = {
    STEP: [
        Case(operands(3), dict(output_final_state=True, initial_state=STATE), rule, CUT),
        Case(operands(1, width=96, batch=2), dict(output_final_state=True, scale=0.5), rule, CUT),
        Case(operands(3, dtype=ttnn.bfloat16), dict(output_per_token_state=True), rule, CUT),
        Case(operands(3), {}, note="without a state the second result is None"),
        Refused((Q, K, V, G, B), dict(use_qk_l2norm=True), "L2-normalize q/k on host"),
        Refused(operands(3, heads=2, values=3), {}, r"HV \(3\) must be divisible by H \(2\)"),
        Refused(operands(3, width=50), {}, "key_dim must be a non-zero multiple of 32, got 50"),
        Refused((Q, K, V, G, B), dict(initial_state=T((1, 4, 64, 64), FP32, RM)), "initial_state must be TILE"),
        Refused((Q, K, V, G, B), dict(initial_state=T((1, 2, 64, 64), FP32)), "must be large enough"),
        Refused((Q, K, V, G, B), dict(compute_kernel_config=ttnn.WormholeComputeKernelConfig()), "fp32_dest_acc_en"),
        Refused(operands(1, heads=40, values=80, width=32, value_width=32), {}, "80 exceeds compute cores 64"),
        Refused((T((1, 8, 128)), K, V, G, B), {}, r"3 not in \[-4, 3\)"),
        Refused(
            (Q, K, V, G, B), dict(output_per_token_state=True, initial_state=STATE,
                                  initial_state_block_idx=T((4,), ttnn.uint32, RM)), "initial_state_block_idx",
            ttnn.NotEmulated,
        ),
    ],
    CHUNK: [
        Case(operands(64), dict(output_final_state=True, initial_state=STATE), rule, CAST),
        Case(operands(40), dict(output_final_state=True, chunk_size=32), rule, CAST),
        Case(operands(64, flat=True), dict(output_final_state=True, chunk_size=32, output_head_major=True), rule, CAST),
        Case(operands(40, batch=2), dict(output_head_major=True), note="without a state the second result is None"),
        Refused((Q, K, V, G, B), dict(use_qk_l2norm=True), "pre-normalize q/k on host"),
        Refused((Q, K, V, G, B), dict(chunk_size=128), r"must be 32 or 64 \(got 128\)"),
        Refused((T((1, 8, 2, 64), FP32, RM), K, V, G, B), {}, "expected all input tensors to be in tile layout"),
        Refused((T((1, 64, 2, 64), FP32, RM), *operands(64)[1:]), {}, "q must be TILE layout"),
        Refused(operands(64, heads=2, values=3), {}, r"HV \(3\) must be divisible by H \(2\)"),
        Refused((Q, K, V, T((1, 4, 4), FP32), B), {}, r"g must be \[B, T, HV\] = \[1, 8, 4\]"),
        Refused(operands(64, width=50), {}, "key_dim must be a multiple of 32"),
        Refused(operands(64, flat=True), {}, "OPT-A flat q/k needs the in-kernel norm"),
        Refused(operands(40, flat=True), dict(chunk_size=32), "OPT-A flat v requires T"),
        Refused((Q, K, V, G, B), dict(compute_kernel_config=ttnn.WormholeComputeKernelConfig()), "runs HiFi4"),
        Refused((Q, K, V, G, B), dict(wy_inverse=ttnn.ChunkGdnWyInverse.FORWARD_SUBSTITUTION, chunk_size=32),
                "Blackhole-only"),
    ],
}  # fmt: skip
