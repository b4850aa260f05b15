"""The shares of a mesh tensor, on one chip; `test_mesh.py` has meshes."""

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T

CASES = {
    "ttnn.get_device_tensors": [
        Case((T((1, 1, 32, 64)),), {}, lambda x: [x]),
    ],
    "ttnn.combine_device_tensors": [
        Case((), dict(tensors=[T((1, 1, 32, 64))]), lambda tensors: tensors[0]),
        Refused((), dict(tensors=[]), "At least one"),
        Refused((), dict(tensors=[T((1, 1, 32, 64)), T((1, 1, 32, 64))]), "same mesh buffer"),
    ],
    "ttnn.from_host_shards": [
        Case(([T((2, 4), host=True)], ttnn.MeshShape(1, 1)), reference=lambda tensors, _: tensors[0]),
        Refused(([T((2, 4), host=True)], ttnn.MeshShape(1, 2)), match="must match mesh size"),
        Refused(([T((2, 4), host=True), T((4, 4), host=True)], ttnn.MeshShape(1, 2)), match="same tensor spec"),
        Refused(([T((32, 32))], ttnn.MeshShape(1, 1)), match="must be on host"),
    ],
    "ttnn.aggregate_tensor": [Refused(([T((1, 1, 32, 64))],), {}, "incompatible", TypeError)],
}  # fmt: skip
