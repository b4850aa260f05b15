"""topk_router_gpt: the experts of tokens and their weights, in one op."""

from __future__ import annotations

import torch

from ... import numerics
from ...dtypes import Layout, bfloat16, cpp, uint16
from ...errors import DeviceRejects
from ...launch import launch, on_device
from ...memory import L1_MEMORY_CONFIG
from ...numerics import ComputeConfig, fpu, rounding, vector
from ...op import op
from ...shape import TILE
from ...tensor import Tensor, spec

EXPERTS = 128
_CONFIG = ComputeConfig("HiFi2", False, True, False)


def _want(holds: bool, reason: str, hint: str | None = None) -> None:
    if not holds:
        raise DeviceRejects(reason, hint)


def _softmax(scores):
    """Of rows that begin with their maximum, by the approximate exponential."""
    e = rounding.pack(vector.exp_approx(fpu.sub(scores, scores[:, :1], True)), "bfloat16")
    inverse = rounding.pack(1 / fpu.row_sum(e, _CONFIG.math_fidelity, True), "bfloat16")
    return rounding.pack(fpu.mul(e, inverse, _CONFIG.math_fidelity, True), "bfloat16")


@op("ttnn.experimental.topk_router_gpt")
def topk_router_gpt(
    input_tensor: Tensor, *, weight_tensor: Tensor, bias_tensor: Tensor, k: int = 4, num_experts: int = EXPERTS
) -> list[Tensor]:
    """The k experts with the largest x @ weight + bias of every token, and the softmax over those k.

    Shapes    [B, hidden], [hidden, 128], [B, 128], B up to 32 -> indices and weights [B, k]
    Dtypes    bfloat16 -> uint16, bfloat16
    Layout    TILE -> ROW_MAJOR, in L1
    Numerics  HiFi2, an fp32 destination, the approximate exponential
    Differs   the cores' parts of the product are not determined: of the recorded indices 91 to 97 % are these, of the
              weights 35 to 59 % (the others within 4 %); the padding of fewer than 32 tokens is not in
              padded_shape
    Source    recorded vectors `router`; refusals asked one by one
    """
    tensors = {"Input": input_tensor, "Weight": weight_tensor, "Bias": bias_tensor}
    _want(1 <= k <= TILE, f"topk_router_gpt requires k in range [1, 32], got {k}")
    _want(
        num_experts == EXPERTS,
        f"topk_router_gpt only supports num_experts=128 (hardcoded 4-group architecture), got {num_experts}",
    )
    for label, t in tensors.items():
        _want(on_device(t).dtype is bfloat16, f"{label} tensor must have BFLOAT16 dtype, got {cpp(t.dtype)}")
    for label, t in tensors.items():
        _want(t.layout is Layout.TILE, f"{label} tensor must have TILE layout, got {cpp(t.layout)}")
    for label, t in tensors.items():
        _want(len(t.spec.shape) == 2, f"{label} tensor must be rank 2, got rank {len(t.spec.shape)}")
    (tokens, hidden), weight, bias = (t.spec.shape for t in tensors.values())
    _want(1 <= tokens <= TILE, f"topk_router_gpt requires batch_size in [1, 32], got {tokens}")
    _want(hidden % TILE == 0, f"Input hidden_dim must be divisible by 32 (tile size), got {hidden}")
    _want(weight[0] == hidden, f"Weight tensor dim 0 must match input hidden_dim {hidden}, got {weight[0]}")
    _want(weight[1] == EXPERTS, f"Weight tensor dim 1 must match num_experts 128, got {weight[1]}")
    _want(bias[0] == tokens, f"Bias tensor dim 0 must match batch size {tokens}, got {bias[0]}")
    _want(bias[1] == EXPERTS, f"Bias tensor dim 1 must match num_experts 128, got {bias[1]}")

    def compute(x, w, b):
        n = numerics.now()
        scores = n.add(n.matmul(x, w, _CONFIG, dtype="float32"), b, "bfloat16", "float32", "bfloat16")
        at = torch.argsort(scores.float(), dim=-1, descending=True, stable=True)[:, :k]
        return at, _softmax(scores.gather(-1, at))

    made = [spec((tokens, k), dtype, Layout.ROW_MAJOR, L1_MEMORY_CONFIG) for dtype in (uint16, bfloat16)]
    return launch(
        "ttnn.experimental.topk_router_gpt", tuple(tensors.values()), made, compute, flops=2 * tokens * hidden * EXPERTS
    )
