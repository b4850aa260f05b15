"""Tensors in files."""

from __future__ import annotations

import os

import torch

from ...device import MeshDevice
from ...dtypes import (
    DataType,
    Layout,
)  # fmt: skip
from ...enums import Named
from ...errors import DeviceRejects, NotEmulated
from ...op import op
from ...tensor import PlacementReplicate, PlacementShard, Tensor, TensorTopology, spec
from .transfer import from_device, to_device

_FORMAT = "ttnn_emulator tensor 1"


class DumpTensorMode(Named):
    """How the chips of a mesh write a file; one process holds them all here."""

    DISTRIBUTED_GATHER = 0
    LOCAL = 1


@op("ttnn.dump_tensor")
def dump_tensor(file_name, tensor: Tensor, *, mode: DumpTensorMode = DumpTensorMode.DISTRIBUTED_GATHER) -> None:
    """Writes a tensor to a `.tensorbin` file.

    Shapes    any
    Dtypes    all
    Differs   the file is the emulator's own, which the library does not read
    Source    ttnn 0.81.1: the binding's arguments; not in the recorded contract
    """
    if not str(file_name).endswith(".tensorbin"):
        raise DeviceRejects(f"File {file_name} must have .tensorbin extension")
    host = from_device(tensor)
    shards = [p.dim if isinstance(p, PlacementShard) else None for p in host.topology.placements()]
    fields = {"format": _FORMAT, "dtype": host.dtype.name, "layout": host.layout.name, "shape": list(host.spec.shape)}
    fields |= {"distribution": list(host.topology.distribution_shape()), "shards": shards}
    torch.save(fields | {"values": [v.contiguous() for v in host.host]}, str(file_name))


@op("ttnn.load_tensor")
def load_tensor(file_name, *, device: MeshDevice | None = None) -> Tensor:
    """Reads what `dump_tensor` wrote, onto a device if one is given.

    Shapes    as saved
    Dtypes    as saved
    Source    ttnn 0.81.1: the binding's arguments; not in the recorded contract
    """
    if not os.path.exists(file_name):
        raise DeviceRejects(f"Unable to load the tensor from {file_name}.  The file does not exist.")
    with open(file_name, "rb") as file:
        ours = file.read(2) == b"PK"  # torch.save writes a zip archive
    fields = torch.load(str(file_name), weights_only=True) if ours else {}
    if fields.get("format") != _FORMAT:
        raise NotEmulated(f"{file_name} was not written by the emulator; files of the library are not read")
    placements = [PlacementReplicate() if d is None else PlacementShard(d) for d in fields["shards"]]
    made = spec(tuple(fields["shape"]), DataType[fields["dtype"]], Layout[fields["layout"]], None)
    tensor = Tensor(made, host=fields["values"], topology=TensorTopology(fields["distribution"], placements))
    return tensor if device is None else to_device(tensor, device)
