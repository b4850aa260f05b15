"""Which experts a token goes to, and how much of each: HF's routers on the device, without looking anything up."""

from dataclasses import dataclass

import torch
import ttnn

from bringup.blocks import weights
from bringup.blocks.hf import named
from bringup.blocks.parallel import Mesh
from bringup.blocks.precision import Precision

NEVER = -1e30  # the score of an expert that is not to be chosen


@dataclass(frozen=True)
class Routing:
    """How a model chooses `top_k` experts by their scores and weighs them: facts that its file states.

    scores      "softmax" over all experts, or "sigmoid" of each; chosen by them, and by a correction where HF has one
    normalised  the weights of the chosen sum to 1
    scale       what they are multiplied by in the end
    groups      experts are in so many groups, of which the `top_groups` with the best two scores are open
    """

    top_k: int
    scores: str = "softmax"
    normalised: bool = True
    scale: float = 1.0
    groups: int = 1
    top_groups: int = 1


#: HF's names, in a mixture, of what scores the experts, of what corrects the scores, and of the MLP that all share.
ROUTERS = ("gate", "router")
CORRECTIONS = ("e_score_correction_bias", "expert_bias")
SHARED = ("shared_expert", "shared_experts", "shared_mlp")


def scorer(hf_moe: torch.nn.Module) -> torch.nn.Module:
    """What has the weight [experts, hidden] by which a mixture of HF scores: its router, or a linear inside of it."""
    router = named(hf_moe, ROUTERS)
    inside = (m for m in router.children() if isinstance(m, torch.nn.Linear))
    return router if hasattr(router, "weight") else next(inside)


def correction(hf_moe: torch.nn.Module) -> torch.Tensor | None:
    """What is added to the scores that experts are chosen by, not to their weights: the router has it, or a module of
    its own, or the mixture."""
    router = named(hf_moe, ROUTERS)
    return next((c for m in (hf_moe, *router.modules()) if (c := named(m, CORRECTIONS)) is not None), None)


class Router(torch.nn.Module):
    """x [1, 1, rows, hidden] -> weights [1, 1, rows, experts] bfloat16, 0 for those not chosen; replicated.

    Scores are float32: experts whose scores differ by less than bfloat16 tells apart are told apart, as in HF's fp32.
    Chosen is whose score is at least the k-th largest: of equal scores at that place all are.
    """

    def __init__(self, hf_moe: torch.nn.Module, routing: Routing, mesh: Mesh, precision: Precision):
        super().__init__()
        self.routing, self.compute, self.norm_compute = routing, precision.linear, precision.norm
        scores, added = scorer(hf_moe), correction(hf_moe)
        bias = getattr(scores, "bias", None)
        self.weight = weights.replicated(scores.weight, mesh, ttnn.bfloat16)
        self.bias = None if bias is None else weights.vector(bias, mesh)
        self.correction, self.members = None, None
        if added is not None:
            self.correction = mesh.put(added.detach().view(1, 1, 1, -1).float(), ttnn.float32, ttnn.TILE_LAYOUT)
        if routing.groups > 1:
            experts = scores.weight.shape[0]
            of_group = torch.eye(routing.groups).repeat_interleave(experts // routing.groups, 1)
            self.members = mesh.put(of_group[None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT)

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        r = self.routing
        logits = ttnn.linear(
            x, self.weight, bias=self.bias, dtype=ttnn.float32, compute_kernel_config=self.compute,
            memory_config=x.memory_config(),
        )  # fmt: skip
        if r.scores == "sigmoid" or self.correction is not None:
            scores = ttnn.sigmoid(logits) if r.scores == "sigmoid" else self._softmax(logits)
            chosen = self._largest(self._open(scores), r.top_k)
            weight = ttnn.where(chosen, scores, 0.0)
            if r.normalised:
                weight = ttnn.div(weight, ttnn.sum(weight, dim=-1, keepdim=True))
        else:
            chosen = self._largest(logits, r.top_k)  # the order of a softmax is that of its logits
            if r.normalised:  # a softmax over the chosen alone
                weight = self._softmax(ttnn.where(chosen, logits, NEVER))
            else:
                weight = ttnn.where(chosen, self._softmax(logits), 0.0)
        if r.scale != 1.0:
            weight = ttnn.mul(weight, r.scale)
        return ttnn.typecast(weight, ttnn.bfloat16)

    def _softmax(self, x: ttnn.Tensor) -> ttnn.Tensor:
        return ttnn.softmax(x, dim=-1, numeric_stable=True, compute_kernel_config=self.norm_compute)

    def _largest(self, x: ttnn.Tensor, k: int) -> ttnn.Tensor:
        """1 where x is one of the k largest of its row."""
        values, _ = ttnn.topk(x, k=k, dim=-1)
        return ttnn.ge(x, ttnn.slice(values, (0, 0, 0, k - 1), (1, 1, x.shape[-2], k)))

    def _open(self, scores: ttnn.Tensor) -> ttnn.Tensor:
        """Scores to choose by: corrected, and `NEVER` in the groups that are closed."""
        if self.correction is not None:
            scores = ttnn.add(scores, self.correction)
        if self.members is None:
            return scores
        rows, experts, groups = scores.shape[-2], scores.shape[-1], self.routing.groups
        best, _ = ttnn.topk(ttnn.reshape(scores, (1, rows, groups, experts // groups)), k=2, dim=-1)
        of_group = ttnn.reshape(ttnn.sum(best, dim=-1, keepdim=True), (1, 1, rows, groups))
        groups_open = ttnn.typecast(self._largest(of_group, self.routing.top_groups), ttnn.bfloat16)
        is_open = ttnn.matmul(groups_open, self.members, compute_kernel_config=self.compute)
        return ttnn.where(ttnn.typecast(is_open, ttnn.float32), scores, NEVER)
