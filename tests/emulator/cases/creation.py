"""Cases of creation, and of transfers between host and device."""

import os
import tempfile

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Device, Refused, T

from .data_movement import L1, RM, sharded

TILE, DRAM = ttnn.TILE_LAYOUT, ttnn.DRAM_MEMORY_CONFIG
WEIGHT = torch.randn(1, 1, 64, 96, generator=torch.Generator().manual_seed(1))
WHOLE = torch.arange(-3, 61).reshape(8, 8)


def weight(*_, **__):
    return WEIGHT.bfloat16().float()


def filled(value, shape=(1, 1, 20, 50)):
    return lambda *_, **__: torch.full(shape, value)


def alike(x, *_, **__):
    return x


def split(dim):
    return lambda device: ttnn.ShardTensorToMesh(device, dim)


def join(dim):
    return lambda device: ttnn.ConcatMeshToTensor(device, dim)


def like(value):
    return lambda x, *_, **__: torch.full(x.shape, value, dtype=x.dtype)


SHAPE, DEVICE = (1, 1, 20, 50), Device()
ON_DEVICE = {"layout": TILE, "device": DEVICE}
OTHER = T((1, 1, 32, 64), host=True)

FILES = tempfile.mkdtemp()
ttnn.dump_tensor(os.path.join(FILES, "whole.tensorbin"), ttnn.from_torch(WEIGHT, dtype=ttnn.bfloat16))

CASES = {
    "ttnn.from_torch": [
        Case((WEIGHT,), {"dtype": ttnn.bfloat16, **ON_DEVICE}, reference=weight),
        Case((WEIGHT, ttnn.bfloat16), {"device": DEVICE, "memory_config": L1}, reference=weight),
        Case((WEIGHT,), {"dtype": ttnn.bfloat8_b}, reference=lambda *_, **__: WEIGHT, tolerance=2.0**-6),
        Case((WEIGHT,), {"dtype": ttnn.bfloat4_b, **ON_DEVICE}, reference=lambda *_, **__: WEIGHT, tolerance=0.2),
        Case((WHOLE,), {"dtype": ttnn.uint16}, reference=lambda x, **_: x % 65536),
        Case((WHOLE,), {"dtype": ttnn.int32, "device": DEVICE}, reference=lambda x, **_: x),
        Case((torch.tensor(1.5),), {"layout": TILE}, reference=lambda x, **_: x),
        Case(
            (WEIGHT,),
            {"dtype": ttnn.bfloat16, **ON_DEVICE},
            reference=lambda *_, **__: weight().repeat(8, 1, 1, 1),
            system="t3000",
            compose=join(0),
        ),
        Refused(
            (WEIGHT,),
            {"dtype": ttnn.bfloat8_b, "layout": RM},
            match="Layout must be Layout::TILE for bfloat8_b or bfloat4_b!",
        ),
        Refused(
            (WEIGHT,),
            {"device": DEVICE, "memory_config": ttnn.L1_WIDTH_SHARDED_MEMORY_CONFIG},
            match="Shard spec must not be None",
        ),
        Refused((torch.zeros(1, dtype=torch.complex64), ttnn.bfloat16), match="got unexpected dlpack dtype"),
        Refused(([1.0, 2.0],), match="incompatible function arguments", error=TypeError),
    ],
    "ttnn.as_tensor": [
        Case((WEIGHT, ttnn.bfloat16), {"layout": TILE, "device": DEVICE, "memory_config": DRAM}, reference=weight),
        Case(
            (WEIGHT, ttnn.bfloat16),
            {"preprocess": lambda x: x.transpose(-2, -1)},
            reference=lambda *_, **__: weight().transpose(-2, -1),
        ),
        Refused(
            (WEIGHT, ttnn.bfloat16),
            {"device": DEVICE},
            match="memory_config must be specified when device is specified",
        ),
    ],
    "ttnn.to_torch": [
        Case((T((1, 1, 20, 50)),), reference=alike),
        Case((T((1, 1, 20, 50), ttnn.bfloat8_b),), {"torch_rank": 2}, reference=lambda x, **_: x[0, 0]),
        Case((T((1, 1, 20, 50)), torch.float64), reference=lambda x, _: x.float()),
        Refused((T((2, 1, 20, 50)),), {"torch_rank": 3}, match="Unable to squeeze to desired rank!"),
        Refused((T((1, 1, 32, 64), mapper=split(3)),), match="Supply a mesh composer to concatenate", system="n300"),
    ],
    "ttnn.to_device": [
        Case((T((1, 1, 20, 50), host=True), DEVICE), {"memory_config": L1}, reference=alike),
        Case((T((1, 1, 20, 50)), DEVICE), reference=alike),
    ],
    "ttnn.from_device": [Case((T((1, 1, 20, 50), memory_config=L1),), reference=alike)],
    "ttnn.deallocate": [
        Case((T((1, 1, 32, 64)),), note="returns nothing; tests/emulator/test_memory.py checks what it frees"),
        Case((T((1, 1, 32, 64), host=True), False), note="leaves a host tensor alone"),
        Refused((None,), match="incompatible function arguments", error=TypeError),
    ],
    "ttnn.zeros": [
        Case((SHAPE,), {"dtype": ttnn.bfloat16, **ON_DEVICE}, reference=filled(0.0)),
        Case((SHAPE,), {"dtype": ttnn.bfloat8_b}, reference=filled(0.0)),
        Refused(
            (SHAPE,), {"dtype": ttnn.bfloat8_b, "layout": RM, "device": DEVICE}, match="Only TILE layout is supported"
        ),
        Refused((32,), match="incompatible function arguments", error=TypeError),
        Refused(
            ((1, 1, 2097152, 4096),),
            {"dtype": ttnn.bfloat16, **ON_DEVICE},
            match="Out of Memory: Not enough space to allocate 17179869184 B DRAM",
        ),
    ],
    "ttnn.ones": [Case((SHAPE,), {"dtype": ttnn.uint32, **ON_DEVICE}, reference=filled(1))],
    "ttnn.full": [
        Case((SHAPE, 1.5), {"dtype": ttnn.bfloat4_b, **ON_DEVICE}, reference=filled(1.5)),
        Case((SHAPE, 2.7), {"dtype": ttnn.int32, **ON_DEVICE}, reference=filled(2)),
        Case(((1, 1, 32, 64), 3.0), {"optional_tensor": T((1, 1, 32, 64))}, reference=filled(3.0, (1, 1, 32, 64))),
    ],
    "ttnn.rand": [
        Case(
            ((32, 64), DEVICE),
            {"low": -1.0, "seed": 5},
            note="numbers of torch's generator; test_names has their range",
        ),
        Refused(((32, 64), DEVICE), {"low": 2.0}, match="lower bound must be less than upper bound, got .2, 1."),
        Refused(((32, 64), DEVICE), {"dtype": ttnn.uint8}, match="Output dtype DataType::UINT8 is not supported"),
        Refused(((32, 64),), match="incompatible function arguments", error=TypeError),
    ],
    "ttnn.empty": [
        Case((SHAPE,), {"device": DEVICE}, reference=filled(0.0)),
        Refused((SHAPE,), match="incompatible function arguments", error=TypeError),
    ],
    "ttnn.zeros_like": [Case((T(SHAPE, ttnn.float32),), {"memory_config": L1}, reference=like(0))],
    "ttnn.ones_like": [Case((T(SHAPE),), {"layout": RM}, reference=like(1))],
    "ttnn.full_like": [Case((T(SHAPE, ttnn.int32), 7), reference=like(7))],
    "ttnn.empty_like": [
        Case((T(SHAPE),), reference=like(0)),
        Refused((T(SHAPE, host=True),), match="needs a device"),
    ],
    "ttnn.arange": [
        Case((0, 40, 3), {"dtype": ttnn.uint32, "device": DEVICE}, reference=lambda *a, **_: torch.arange(*a)),
        Case((10,), reference=lambda n: torch.arange(float(n))),
        Refused((0, 10, 0), match="Step must be nonzero"),
        Refused((10, 0), match="Step direction does not match range bounds"),
    ],
    "ttnn.allocate_tensor_on_device": [
        Case(((1, 1, 32, 64), ttnn.bfloat16, TILE, DEVICE), reference=filled(0.0, (1, 1, 32, 64))),
        Case(
            (
                ttnn.TensorSpec((1, 1, 32, 64), ttnn.bfloat16, TILE),
                DEVICE,
            ),
            reference=filled(0.0, (1, 1, 32, 64)),
        ),
        Refused(
            (ttnn.TensorSpec((1, 1, 12288, 4096), ttnn.bfloat16, TILE, buffer_type=ttnn.BufferType.L1), DEVICE),
            match="across 64 banks, where each bank needs to store 1572864 B",
        ),
    ],
    "ttnn.copy_host_to_device_tensor": [
        Case((OTHER, T((1, 1, 32, 64))), reference=lambda host, _: host, changes=1),
        Case(
            (OTHER, T((1, 1, 32, 64), memory_config=sharded("HEIGHT", (32, 64), 1, 1))),
            reference=lambda host, _: host,
            changes=1,
        ),
        Refused((T((1, 1, 32, 32), host=True), T((1, 1, 32, 64))), match="Host tensor has different shape"),
        Refused(
            (T((1, 1, 32, 64), ttnn.float32, host=True), T((1, 1, 32, 64))), match="Host tensor has different dtype"
        ),
        Refused(
            (T((1, 1, 32, 64), layout=RM, host=True), T((1, 1, 32, 64))), match="Host tensor has different page config"
        ),
        Refused(
            (T((1, 1, 32, 64)), T((1, 1, 32, 64))), match="Expected Tensor with HostStorage, got StorageType::DEVICE"
        ),
    ],
    "ttnn.dump_tensor": [
        Case((os.path.join(FILES, "x.tensorbin"), T((1, 1, 20, 50))), note="test_memory.py reads the file back"),
        Refused((os.path.join(FILES, "x.bin"), T((1, 1, 20, 50))), match="must have .tensorbin extension"),
    ],
    "ttnn.load_tensor": [
        Case((os.path.join(FILES, "whole.tensorbin"),), reference=lambda _: WEIGHT.bfloat16().float()),
        Refused((os.path.join(FILES, "none.tensorbin"),), match="The file does not exist"),
    ],
    "ttnn.copy_device_to_host_tensor": [
        Case((T((1, 1, 32, 64)), OTHER), reference=lambda x, _: x, changes=1),
        Refused((T((1, 1, 32, 64)), T((1, 1, 32, 32), host=True)), match="Host tensor has different shape"),
    ],
}
