"""The recorded cases: real ttnn operations, bit for bit (ttnn 0.81.1 on a functional model of the chip, Wormhole B0).

`tests/data/numerics/index.json` and `newer/index.json.gz` have an entry a case: id, file, op, inputs, kwargs,
compute_kernel_config, outputs (`tests.numerics.calls` reads them). Arrays of uint16 are bfloat16 patterns; block-float
inputs are stored before quantisation, outputs as the bfloat16 values they mean; integers are compared modulo 2^32.
"""

import functools
import gzip
import json
import pathlib

import numpy as np
import torch

import ttnn_emulator as ttnn
from tests.numerics import calls
from ttnn_emulator import blockfloat, chips
from ttnn_emulator.dtypes import NAME

DATA = pathlib.Path(__file__).parents[1] / "data" / "numerics"
NEWER = DATA / "newer"
BLACKHOLE = DATA / "blackhole"


@functools.cache
def _file(path):
    if path.parent == BLACKHOLE:
        return _file(DATA / path.name) | _changed(path.name)
    return _arrays_of(path)


@functools.cache
def _arrays_of(path):
    with np.load(path) as z:
        return {n: z[n] for n in z.files}


def _changed(name):
    """The arrays of one of Blackhole's files that are not Wormhole's; of one that has a counterpart of its shape, the
    bits in which they differ are kept."""
    own, found = _file(DATA / name), {}
    for key, x in _arrays_of(BLACKHOLE / "changed.npz").items():
        file, array = key.split("/")
        if file == name:
            other = own.get(array)
            if other is not None and other.shape == x.shape:
                bits = np.uint16 if x.itemsize == 2 else np.uint32
                x = (x.view(bits) ^ other.view(bits)).view(x.dtype)
            found[array] = x
    return found


def tensor(array):
    """A torch tensor of an array as stored: uint16 is bfloat16."""
    return (
        torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        if array.dtype == np.uint16
        else torch.from_numpy(array)
    )


def device():
    return _device(chips.machine())


@functools.cache
def _device(machine):
    return ttnn.open_device(device_id=0)


class Case:
    """One recorded call, made on the emulator (`results`) or in float64 (`ideal`)."""

    def __init__(self, entry, folder=DATA):
        self.id, self.file, self.op = entry["id"], entry["file"], entry["op"].split(".")[-1]
        self.entry, self.kwargs, self.folder = entry, entry["kwargs"], folder

    def __repr__(self):
        return self.id

    def _arrays(self, which):
        return [tensor(_file(self.folder / self.file)[i["array"]]).reshape(i["shape"]) for i in self.entry[which]]

    def recorded(self):
        """The device's outputs, in the dtype that `to_torch` gives."""
        return [
            y.float() if o["dtype"] == "fp32" else y
            for y, o in zip(self._arrays("outputs"), self.entry["outputs"], strict=True)
        ]

    def results(self):
        return calls.call(self.entry, self._arrays("inputs"), device())

    def differing(self):
        """How many elements of the results are not the recorded ones, and of how many."""
        wrong = count = 0
        results = self.results()
        for o, got, want in zip(self.entry["outputs"], results, self.recorded(), strict=True):
            assert got.shape == want.shape, (self, got.shape, want.shape)
            if want.is_floating_point():
                assert got.dtype == want.dtype or o["dtype"] in ("bfp8", "bfp4"), (self, got.dtype, want.dtype)
                got = got.to(want.dtype)
                bits = torch.int16 if want.dtype == torch.bfloat16 else torch.int32
                differ = got.contiguous().view(bits) != want.contiguous().view(bits)
                if self.folder == NEWER:  # there -0 is 0, and all nans are one
                    differ &= (got != want) & ~(got.isnan() & want.isnan())
            elif self.op in (
                "topk",
                "sort",
            ):  # of equal values the order is the device's own: what they point at counts
                dim = (self.kwargs.get("args") or [0, self.kwargs.get("dim", -1)])[1]
                differ = self._arrays("inputs")[0].gather(dim, got.to(torch.int64)) != results[0]
            else:
                differ = (got.to(torch.int64) - want.to(torch.int64)) & 0xFFFFFFFF != 0
            wrong, count = wrong + int(differ.sum()), count + want.numel()
        return wrong, count

    def ideal(self):
        """The operation in float64 on the device's operands."""
        dtypes = [NAME[calls.DTYPES[i["dtype"]]] for i in self.entry["inputs"]]
        x = [
            (blockfloat.quantise(t, d) if d in blockfloat.TILE_BYTES else t).double()
            for t, d in zip(self._arrays("inputs"), dtypes, strict=True)
        ]
        kw = self.kwargs
        if self.file == "matmul.npz":
            y = x[0] @ x[1] + (x[2] if len(x) > 2 else 0)
            act = kw.get("activation")
            return getattr(torch.nn.functional, act)(y) if act else y
        if self.file == "norm.npz":
            y = x[0] - x[0].mean(-1, keepdim=True) if self.op == "layer_norm" else x[0]
            y = y / (y.square().mean(-1, keepdim=True) + kw["epsilon"]).sqrt()
            return y * (x[1] if len(x) > 1 else 1) + (x[2] if len(x) > 2 else 0)
        if self.op == "softmax":
            return x[0].softmax(kw["dim"])
        decode = self.file == "sdpa_decode.npz"
        q, k, v = x
        if decode:
            q, k, v = q.transpose(1, 2), *(t[:, :, : kw["cur_pos"][0] + 1] for t in (k, v))
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=kw.get("is_causal", False))
        return y.transpose(1, 2) if decode else y


def cases(*files, ops=None):
    """Recorded cases of these files."""
    entries = json.loads((DATA / "index.json").read_text())["cases"]
    found = [Case(e) for e in entries if e["file"] in files]
    return [c for c in found if ops is None or c.op in ops]


def newer():
    """The cases of less common operations and configurations."""
    entries = json.loads(gzip.decompress((NEWER / "index.json.gz").read_bytes()))
    return [Case(e, NEWER) for e in entries]


def blackhole():
    """The cases of Blackhole: those of `cases`, data movement, and decode attention on two grids."""
    entries = json.loads(gzip.decompress((BLACKHOLE / "index.json.gz").read_bytes()))["cases"]
    return [Case(e, BLACKHOLE) for e in entries]


def known():
    """Newer cases that are not the device's bits: id -> why."""
    return json.loads((NEWER / "known.json").read_text())
