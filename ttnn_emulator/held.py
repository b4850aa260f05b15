"""What lies in memory after each recorded call, and which tensors it took and made: `op.record(buffers=True)`.

For tools that draw memory. A recording starts by looking for the tensors there are already (weights, say).
"""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import NamedTuple

from .buffer import Buffer
from .memory import banks_of, pages_of
from .tensor import Tensor, TensorSpec


class Handle(NamedTuple):
    """A tensor: its number in this process, its spec, and its address in every bank (None: on the host)."""

    number: int
    spec: TensorSpec
    address: int | None


class Block(NamedTuple):
    """Memory in use: `bank_bytes` at `address` in every bank.

    spec      of the tensor that is in it (None: kept by a program, and then no pages)
    pages     of the whole tensor where it is interleaved, of one shard where it is sharded; each of `page_bytes`
    """

    buffer_type: object
    address: int
    bank_bytes: int
    spec: TensorSpec | None = None
    pages: int = 0
    page_bytes: int = 0


class Held(NamedTuple):
    """Around one call: tensors in, tensors out, other arguments as (name, text), blocks in use after it."""

    inputs: tuple[Handle, ...]
    outputs: tuple[Handle, ...]
    arguments: tuple[tuple[str, str], ...]
    blocks: tuple[Block, ...]


_numbers: dict[int, tuple[weakref.ref, int]] = {}  # id of a living tensor -> (it, its number)
_next = itertools.count(1)


def _number(tensor: Tensor) -> int:
    known = _numbers.get(id(tensor))
    if known is None or known[0]() is not tensor:
        key = id(tensor)
        known = _numbers[key] = (weakref.ref(tensor, lambda ref: _forget(key, ref)), next(_next))
    return known[1]


def _forget(key: int, ref: weakref.ref) -> None:
    if key in _numbers and _numbers[key][0] is ref:
        del _numbers[key]


def _handle(tensor: Tensor) -> Handle:
    return Handle(_number(tensor), tensor.spec, tensor.buffer.address if tensor.buffer is not None else None)


class Recorder:
    """Keeps the blocks in use up to date from call to call."""

    def __init__(self):
        self._device = None  # of the latest call that had one
        self._blocks: dict[
            int, tuple[Buffer, Block]
        ] = {}  # by the id of the buffer, which is kept so that it stays its
        for each in gc.get_objects():
            if type(each) is Tensor:
                self._see(each)

    def _see(self, tensor: Tensor) -> None:
        if tensor.buffer is None:
            return
        buffer = tensor.buffer.root or tensor.buffer
        if id(buffer) not in self._blocks and buffer.alive and buffer.bank_bytes:
            spec, shards = tensor.spec, tensor.spec.memory_config.shard_spec
            whole = spec.padded_shape if shards is None else shards.shape
            banks = banks_of(buffer.device.chip, buffer.buffer_type)
            pages = pages_of(whole, spec.dtype, spec.layout, banks, None if shards is None else whole[1])
            self._blocks[id(buffer)] = (
                buffer,
                Block(buffer.buffer_type, buffer.address, buffer.bank_bytes, spec, *pages),
            )

    def after(self, given, made, arguments, device) -> Held:
        """What to note of a call; `given` and `made` are its tensors, `arguments` (name, text) of the others."""
        for tensor in (*given, *made):
            self._see(tensor)
        self._blocks = {key: held for key, held in self._blocks.items() if held[0].alive}
        if device is None:
            device = self._device or next((buffer.device for buffer, _ in self._blocks.values()), None)
        self._device = device
        here = [block for buffer, block in self._blocks.values() if buffer.device is device]
        for buffers in device.kept.values() if device is not None else ():
            here += [Block(b.buffer_type, b.address, b.bank_bytes) for b in buffers if b.alive and b.bank_bytes]
        return Held(tuple(map(_handle, given)), tuple(map(_handle, made)), tuple(arguments), tuple(here))
