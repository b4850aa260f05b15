"""The recorded cases: real ttnn operations, bit for bit (ttnn 0.81.1 on the functional simulator v1.10, Wormhole B0).

`tests/data/numerics/index.json` has a line a case: id, file, op, inputs, kwargs, compute_kernel_config, outputs.
Arrays of uint16 are bfloat16 patterns; block-float inputs are stored before quantisation, outputs as the bfloat16
values they mean.
"""

import functools
import json
import pathlib

import numpy as np
import torch

from ttnn_emulator import blockfloat, numerics

DATA = pathlib.Path(__file__).parents[1] / "data" / "numerics"
DTYPES = {
    "bf16": "bfloat16", "bfp8": "bfloat8_b", "bfp4": "bfloat4_b", "fp32": "float32", "u32": "uint32", "i32": "int32",
}  # fmt: skip


@functools.cache
def _file(name):
    with np.load(DATA / name) as z:
        return {n: z[n] for n in z.files}


def tensor(array):
    """A torch tensor of an array as stored: uint16 is bfloat16."""
    return (
        torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        if array.dtype == np.uint16
        else torch.from_numpy(array)
    )


class Case:
    """One recorded call, run through `ttnn_emulator.numerics` (`run`) or in float64 (`ideal`)."""

    def __init__(self, entry):
        self.id, self.file, self.op = entry["id"], entry["file"], entry["op"].split(".")[-1]
        self.entry, self.kwargs = entry, entry["kwargs"]
        self.dtypes = [DTYPES[i["dtype"]] for i in entry["inputs"]]
        self.dtype = DTYPES[entry["outputs"][0]["dtype"]]

    def __repr__(self):
        return self.id

    def inputs(self):
        arrays = (tensor(_file(self.file)[i["array"]]).reshape(i["shape"]) for i in self.entry["inputs"])
        return [
            blockfloat.quantise(t, d) if d in blockfloat.TILE_BYTES else t
            for t, d in zip(arrays, self.dtypes, strict=True)
        ]

    def config(self, op):
        given = self.entry["compute_kernel_config"]
        return numerics.default_config(op, *self.dtypes[:2]) if given == "default" else numerics.ComputeConfig(**given)

    def recorded(self):
        """The device's output; rotary's rows beyond the input's are padding."""
        out = self.entry["outputs"][0]
        y = tensor(_file(self.file)[out["array"]]).reshape(out["shape"])
        return y[:, :, : self.entry["inputs"][0]["shape"][2]] if self.file == "rope.npz" else y

    def run(self):
        n, x, kw = numerics.now(), self.inputs(), self.kwargs
        if self.file == "matmul.npz":
            bias = x[2] if len(x) > 2 else None
            config = self.config("matmul")
            return n.matmul(
                x[0], x[1], config, dtype=self.dtype, bias=bias, activation=kw.get("activation"), w_dtype=self.dtypes[1]
            )
        if self.file == "eltwise.npz":
            if "silu" in self.id:
                return n.mul(n.unary("silu", x[0], "bfloat16"), x[1], self.dtype, *self.dtypes)
            name = {"subtract": "sub", "multiply": "mul"}.get(self.op, self.op)
            return getattr(n, name)(x[0], kw.get("scalar", x[-1]), self.dtype, *self.dtypes)
        if self.file == "unary.npz":
            return n.unary(self.op, x[0], self.dtype, **kw)
        if self.file == "norm.npz":
            weight, bias = (x[1:] + [None, None])[:2]
            return getattr(n, self.op)(x[0], weight, bias, kw["epsilon"], self.config(self.op), self.dtype)
        if self.file == "softmax.npz":
            if self.op == "softmax":
                return n.softmax(
                    x[0],
                    kw["dim"],
                    self.config("softmax"),
                    self.dtype,
                    kw.get("numeric_stable", True),
                    wide=self.entry["compute_kernel_config"] != "default",
                )
            return getattr(n, self.op)(x[0], kw["dim"], kw["keepdim"], self.dtype, self.config("reduce"))
        if self.file == "rope.npz":
            token, rows = kw.get("token_index"), x[0].shape[2]
            cos, sin = (t[:, :, :rows] if token is None else t[:, :, token : token + 1] for t in x[1:])
            return n.rotary(x[0], cos, sin, numerics.default_config("rotary"), self.dtype)
        if self.file == "sdpa.npz":
            program = kw.get("program_config", {})
            return n.attention(
                *x, is_causal=kw["is_causal"], config=self.config("attention"),
                exp_approx=program.get("exp_approx_mode", True), q_chunk=program.get("q_chunk_size", 32),
                k_chunk=program.get("k_chunk_size", 32),
            )  # fmt: skip
        if self.file == "sdpa_decode.npz":
            length = x[1].shape[2]
            chunk = min(512, length & -length)
            return n.attention_decode(*x, kw["cur_pos"], config=self.config("attention_decode"), k_chunk=chunk)
        if self.op == "typecast":
            if "and_back" in self.id:
                return n.typecast(n.typecast(x[0], "bfloat16", "float32"), "float32", "bfloat16")
            return n.typecast(x[0], self.dtypes[0], self.dtype)
        return x[0]  # from_torch and to_torch: the quantisation of the input is what is recorded

    def ideal(self):
        """The operation in float64 on the device's operands."""
        x, kw = [t.double() for t in self.inputs()], self.kwargs
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
    """Recorded cases of these files that are arithmetic (argmax is not)."""
    entries = json.loads((DATA / "index.json").read_text())["cases"]
    found = [Case(e) for e in entries if e["file"] in files]
    return [c for c in found if c.op != "argmax" and (ops is None or c.op in ops)]
