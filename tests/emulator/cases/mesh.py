"""The shares of a mesh tensor, on one chip; `test_mesh.py` has meshes."""

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
    "ttnn.aggregate_tensor": [Refused(([T((1, 1, 32, 64))],), {}, "incompatible", TypeError)],
}  # fmt: skip
