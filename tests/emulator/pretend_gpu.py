"""A GPU that is not there: tensors that say they are on `lazy`, compute on the CPU, and refuse what CUDA refuses.

An operation that mixes them with CPU tensors (of more than one element), and reading their memory from numpy, raise.
What a real GPU rounds otherwise is not seen.
"""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from ttnn_emulator import launch, torch_device

GPU = torch.device("lazy")


class OnGpu(torch.Tensor):
    """`inner` holds the values, on the CPU."""

    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=GPU,
        )  # fmt: skip
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert lazy device type tensor to numpy")

    def tolist(self):
        return self.inner.tolist()

    def __repr__(self):
        return f"OnGpu({self.inner!r})"


def _run(func, args, kwargs):
    flat = torch.utils._pytree.tree_leaves((args, kwargs))
    tensors = [t for t in flat if isinstance(t, torch.Tensor)]
    ours, name = any(isinstance(t, OnGpu) for t in tensors), func.overloadpacket.__name__
    device = kwargs.get("device")
    copies = name in ("_to_copy", "copy_")
    if ours and not copies and any(not isinstance(t, OnGpu) and t.numel() > 1 for t in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device: {name} of lazy and cpu")
    inside = {k: torch.device("cpu") if k == "device" and v is not None else v for k, v in kwargs.items()}
    args, inside = tree_map(lambda t: t.inner if isinstance(t, OnGpu) else t, (args, inside))
    out = func(*args, **inside)
    to_gpu = ours if device is None else torch.device(device).type == "lazy"
    if name == "copy_":
        return tensors[0]
    if name.endswith("_") and not name.endswith("__") and isinstance(out, torch.Tensor) and ours:
        return tensors[0]
    if not to_gpu:
        return out
    return tree_map(lambda t: OnGpu(t) if isinstance(t, torch.Tensor) else t, out)


class _Mode(TorchDispatchMode):
    """Tensors that are made on `lazy` without one to start from."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


@contextlib.contextmanager
def pretend_gpu(monkeypatch):
    """Inside, device tensors are on the GPU that is not there."""
    storage = launch._storage
    monkeypatch.setattr(torch_device, "_chosen", GPU)
    monkeypatch.setattr(launch, "_storage", lambda v: storage(getattr(getattr(v, "kept", v), "inner", v)))
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) goes through the mode
    try:
        with torch.no_grad(), _Mode():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
