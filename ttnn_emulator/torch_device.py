"""The torch device that holds the values of device tensors and computes on them: the CPU unless said otherwise.

    TTNN_EMULATOR_TORCH_DEVICE=cuda, or ttnn_emulator.torch_device.choose("cuda") before a device is opened

Host tensors stay on the CPU, and so does the exact matrix unit, which is compiled for it: results are brought back.
"""

from __future__ import annotations

import os

import torch

CPU = torch.device("cpu")
_chosen: torch.device | None = None


def choose(name: str) -> torch.device:
    """Sets the device by its torch name; ValueError where torch does not know it or cannot use it here."""
    global _chosen
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise ValueError(f"torch device {name!r}: {str(e).splitlines()[0]}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"torch device {name!r}: torch sees no CUDA GPU here (torch {torch.__version__})")
    _chosen = device
    return device


def chosen() -> torch.device:
    """The device in force."""
    return _chosen or choose(os.environ.get("TTNN_EMULATOR_TORCH_DEVICE") or "cpu")


def placed(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """Host values as a device holds them; what chips share they go on sharing."""
    device = chosen()
    if device.type == "cpu":
        return values
    alike = {id(v): v.to(device) for v in values}
    return [alike[id(v)] for v in values]


def on_host(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """Values of a device tensor in memory of the host's own; what chips share they go on sharing."""
    alike = {id(v): v.clone() if v.device == CPU else v.cpu() for v in values}
    return [alike[id(v)] for v in values]
