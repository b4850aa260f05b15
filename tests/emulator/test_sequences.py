"""A thousand random sequences of ops on aliased and freed tensors, against the rules of ttnn 0.81.1 in a few lines.

A handle of the same tensor goes with it, whichever is freed; a view frees its source and not the other views; freeing
the source leaves views marked allocated; what the last handle held is free at once; a freed operand is refused.
"""

import random

import pytest
import torch

import ttnn_emulator as ttnn

SEQUENCES, STEPS = 1000, 12


@pytest.fixture(scope="module")
def device():
    device = ttnn.open_device(device_id=0)
    yield device
    ttnn.close_device(device)


class Held:
    """A tensor, and what the rules say of it: its buffer (shared by handles), and the source's if it is a view."""

    def __init__(self, tensor, own=None, source=None):
        self.tensor, self.own, self.source = tensor, own if own is not None else {"alive": True}, source

    @property
    def memory(self):
        return self.own if self.source is None else self.source

    @property
    def usable(self):
        return self.own["alive"] and self.memory["alive"]


def make(device, rng):
    values = torch.full((1, 1, 64, 64), rng.random())
    return Held(ttnn.from_torch(values, dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device))


def step(held, device, rng):
    kind = rng.choice(["make", "same", "view", "compute", "free", "drop"])
    if kind == "make" or not held:
        held.append(make(device, rng))
        return
    one = rng.choice(held)
    if kind == "drop":
        held.remove(one)
    elif kind == "free":
        ttnn.deallocate(one.tensor)
        one.own["alive"] = one.memory["alive"] = False
    elif not one.usable:
        with pytest.raises((ttnn.DeviceRejects, ttnn.NotEmulated)):
            ttnn.add(one.tensor, one.tensor)
    elif kind == "same":
        held.append(Held(ttnn.to_memory_config(one.tensor, ttnn.DRAM_MEMORY_CONFIG), one.own, one.source))
    elif kind == "view":
        held.append(Held(ttnn.reshape(one.tensor, (1, 2, 32, 64)), {"alive": True}, one.memory)
                    if tuple(one.tensor.shape) == (1, 1, 64, 64) else
                    Held(ttnn.reshape(one.tensor, (1, 1, 64, 64)), {"alive": True}, one.memory))  # fmt: skip
    else:
        held.append(Held(ttnn.add(one.tensor, one.tensor)))


def check(held, device, where):
    for each in held:
        assert each.tensor.is_allocated() == each.own["alive"], where
    alive = {id(each.memory) for each in held if each.memory["alive"]}
    # 64x64 bfloat16: four tiles over twelve banks, so one tile a bank.
    assert device.allocators[ttnn.BufferType.DRAM].allocated == 2048 * len(alive), where


def test_sequences(device):
    rng = random.Random(7)
    for number in range(SEQUENCES):
        held = []
        for at in range(STEPS):
            step(held, device, rng)
            check(held, device, (number, at))
        held.clear()
        check(held, device, number)
