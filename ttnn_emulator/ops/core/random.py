"""Tensors of random numbers: rand, randn, uniform, bernoulli. The generator is torch's, not the chip's."""

from __future__ import annotations

import torch

from ...device import MeshDevice
from ...dtypes import (
    BLOCK_FORMATS,
    NAME,
    ROW_MAJOR_LAYOUT,
    TILE_LAYOUT,
    DataType,
    Layout,
    bfloat16,
    cpp,
    float32,
    uint8,
)
from ...errors import DeviceRejects
from ...launch import finish, generate, on_device, output_memory, same, update
from ...memory import DRAM_MEMORY_CONFIG, MemoryConfig
from ...numerics import rounding
from ...op import op, refuse_unmodelled
from ...tensor import Tensor, spec
from .transfer import host_cast


def _generator(seed: int) -> torch.Generator:
    """By the seed; without one (0) another each time."""
    generator = torch.Generator()
    generator.manual_seed(seed) if seed else generator.seed()
    return generator


@op("ttnn.rand")
def rand(
    shape, device: MeshDevice, *, dtype: DataType = bfloat16, layout: Layout = TILE_LAYOUT,
    memory_config: MemoryConfig = DRAM_MEMORY_CONFIG, low: float = 0.0, high: float = 1.0, seed: int = 0,
    mesh_mapper=None,
) -> Tensor:  # fmt: skip
    """Numbers evenly spread over [low, high).

    Shapes    as said, the same on every chip
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, int32, uint16, uint32
    Differs   the generator is torch's, not the chip's: the same seed gives the same numbers here, others there
    Raises    an empty range; uint8
    Source    ttnn 0.81.1, asked: defaults and refusals
    """
    refuse_unmodelled("ttnn.rand", mesh_mapper=mesh_mapper)
    if dtype is uint8:
        raise DeviceRejects(f"[ttnn::rand] Output dtype {cpp(dtype)} is not supported.")
    _check_range(low, high)

    def values():
        drawn = low + (high - low) * torch.rand(tuple(shape), generator=_generator(seed))
        return host_cast(drawn, dtype)

    return generate("ttnn.rand", _made("ttnn.rand", shape, dtype, layout, memory_config), device, values)


def _made(name: str, shape, dtype, layout, memory_config):
    if any(n < 0 for n in shape):
        raise TypeError(f"{name}(): incompatible function arguments.\n  got    shape = {list(shape)}")
    if dtype in BLOCK_FORMATS and layout is not TILE_LAYOUT:
        raise DeviceRejects("Only TILE layout is supported for BFLOAT8_B dtype!")
    return spec(tuple(shape), dtype, layout, memory_config or DRAM_MEMORY_CONFIG)


def _check_range(low: float, high: float) -> None:
    if not low < high:
        raise DeviceRejects(f"Uniform range lower bound must be less than upper bound, got [{low:g}, {high:g})")


@op("ttnn.randn")
def randn(
    shape, device: MeshDevice, *, dtype: DataType = bfloat16, layout: Layout = TILE_LAYOUT,
    memory_config: MemoryConfig = DRAM_MEMORY_CONFIG, compute_kernel_config=None, seed: int | None = None,
) -> Tensor:  # fmt: skip
    """Normally distributed numbers of mean 0 and variance 1.

    Shapes    as said, the same on every chip
    Dtypes    bfloat16, float32
    Differs   the generator is torch's, not the chip's: the same seed gives the same numbers here, others there
    Source    ttnn 0.81.1, asked: defaults and refusals
    """
    if seed is not None and seed < 0:
        raise TypeError(f"ttnn.randn(): incompatible function arguments.\n  got    seed = {seed}")
    if dtype not in (bfloat16, float32):
        raise DeviceRejects("Randn: Output tensor must be Float32 or Bfloat16")

    def values():
        return host_cast(torch.randn(tuple(shape), generator=_generator(seed or 0)), dtype)

    return generate("ttnn.randn", _made("ttnn.randn", shape, dtype, layout, memory_config), device, values)


def _check_tiled(name: str, x: Tensor) -> None:
    if on_device(x).dtype not in (bfloat16, float32):
        raise DeviceRejects(f"{name}: Input tensor must be Float32 or Bfloat16")
    if x.layout is ROW_MAJOR_LAYOUT:
        raise DeviceRejects(f"{name}: Input tensor must be tilized")


@op("ttnn.bernoulli")
def bernoulli(
    input: Tensor, seed: int = 0, *, output: Tensor | None = None, dtype: DataType | None = None,
    memory_config: MemoryConfig | None = None, compute_kernel_config=None,
) -> Tensor:  # fmt: skip
    """1 with the probability that stands in the tensor, else 0.

    Shapes    any; kept
    Dtypes    bfloat16, float32; float32 comes out unless said
    Layout    TILE
    Differs   the generator is torch's, not the chip's: the same seed gives the same numbers here, others there
    Source    ttnn 0.81.1, asked: dtypes, layouts, results
    """
    _check_tiled("Bernoulli", input)
    kept = dtype or (float32 if output is None else output.dtype)
    out = spec(input.spec.shape, kept, input.layout, output_memory(input, memory_config))

    def compute(p):
        drawn = torch.rand(p.shape, generator=_generator(seed)).to(p.device) < p.float()
        return rounding.pack(drawn.float(), NAME[kept])

    return finish("ttnn.bernoulli", (input,), out, compute, output)


@op("ttnn.uniform")
def uniform(
    input: Tensor, *given, memory_config: MemoryConfig | None = None, compute_kernel_config=None, **named
) -> Tensor:  # fmt: skip
    """The tensor filled with numbers evenly spread over [from, to), in place: uniform(input, from=0, to=1, seed=0).

    Shapes    any; kept
    Dtypes    bfloat16, float32; kept
    Layout    TILE
    Differs   the generator is torch's, not the chip's: the same seed gives the same numbers here, others there
    Raises    an empty range
    Source    ttnn 0.81.1, asked: dtypes, layouts, refusals
    """
    said = dict(zip(("from", "to", "seed"), given))  # `from` is no name in Python
    if len(given) > 3 or named.keys() - {"from", "to", "seed"} or named.keys() & said.keys():
        raise TypeError(f"ttnn.uniform(): incompatible function arguments.\n  got    {given} {named}")
    said = {"from": 0.0, "to": 1.0, "seed": 0} | said | named
    low, high, seed = said["from"], said["to"], said["seed"]
    _check_tiled("Uniform", input)
    _check_range(low, high)

    def compute(target):
        target.copy_(low + (high - low) * torch.rand(target.shape, generator=_generator(seed)))

    update("ttnn.uniform", input, (), compute)
    return same(input)
