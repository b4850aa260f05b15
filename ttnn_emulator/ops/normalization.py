"""rms_norm, layer_norm and softmax."""

from __future__ import annotations

from .. import numerics
from ..config import WormholeComputeKernelConfig, resolve
from ..dtypes import BLOCK_FORMATS, NAME, ROW_MAJOR_LAYOUT, TILE_LAYOUT, bfloat8_b, bfloat16, cpp, float32
from ..errors import DeviceRejects
from ..memory import MemoryConfig
from ..op import launch, on_device, op, output_memory, refuse_unmodelled
from ..tensor import Tensor, spec


@op("ttnn.rms_norm")
def rms_norm(
    input_tensor: Tensor, *, epsilon: float = 1e-12, weight: Tensor | None = None, bias: Tensor | None = None,
    residual_input_tensor: Tensor | None = None, memory_config: MemoryConfig | None = None, program_config=None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None,
) -> Tensor:  # fmt: skip
    """x / sqrt(mean(x^2) + epsilon) * weight + bias over the last dim."""
    return _norm("ttnn.rms_norm", "rms_norm", input_tensor, epsilon, weight, bias, residual_input_tensor, memory_config, compute_kernel_config)


@op("ttnn.layer_norm")
def layer_norm(
    input_tensor: Tensor, *, epsilon: float = 1e-12, weight: Tensor | None = None, bias: Tensor | None = None,
    residual_input_tensor: Tensor | None = None, memory_config: MemoryConfig | None = None, program_config=None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, recip_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """(x - mean) / sqrt(variance + epsilon) * weight + bias over the last dim."""
    return _norm("ttnn.layer_norm", "layer_norm", input_tensor, epsilon, weight, bias, residual_input_tensor, memory_config, compute_kernel_config)


def _norm(name, function, x, epsilon, weight, bias, residual, memory_config, config):
    on_device(x)
    c = resolve(config, numerics.default_config(function, NAME[x.dtype]))
    out = spec(x.shape, x.dtype, x.layout, output_memory(x, memory_config))
    dtype = NAME[x.dtype]

    def compute(v, w, b, r):
        w, b = (None if p is None else p.reshape(-1)[: v.shape[-1]] for p in (w, b))
        return getattr(numerics.now(), function)(v, w, b, epsilon, c, dtype, residual=r)

    return launch(name, (x, weight, bias, residual), out, compute, flops=6 * x.volume(), attrs={"math_fidelity": c.math_fidelity})


@op("ttnn.softmax")
def softmax(
    input_tensor: Tensor, dim: int = -1, *, memory_config: MemoryConfig | None = None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, numeric_stable: bool = True,
) -> Tensor:  # fmt: skip
    """exp(x - max) / sum(exp(x - max)) over `dim`."""
    x, rank = on_device(input_tensor), len(input_tensor.shape)
    if not -rank <= dim < rank:
        raise DeviceRejects(f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {dim})")
    c = resolve(compute_kernel_config, numerics.default_config("softmax", NAME[x.dtype]))
    out = spec(x.shape, x.dtype, x.layout, output_memory(x, memory_config))
    dtype = NAME[x.dtype]
    return launch(
        "ttnn.softmax", (x,), out, lambda v: numerics.now().softmax(v, dim, c, dtype, numeric_stable), flops=5 * x.volume(),
        attrs={"math_fidelity": c.math_fidelity},
    )
