"""Operands on different devices: where the library looks and what it says."""

from __future__ import annotations

from .device import MeshDevice
from .errors import DeviceRejects, NotEmulated

#: What the library says where a later operand lies on another device than the first, by the op's name; of other ops
#: it does not look. (ttnn 0.81.1, two devices open on a mock cluster.)
_APART = {
    "Operands to matmul need to be on the same device!": "matmul linear addmm",
    "minimal_matmul inputs must reside on the same device": "experimental.minimal_matmul",
    "Operands to concat need to be on the same device.": "concat",
    "Input and gamma tensors must be on same device": "rms_norm layer_norm",
    "Input tensor and mask must be on the same device":
        "scale_mask_softmax scale_mask_softmax_in_place scale_causal_mask_hw_dims_softmax_in_place",
    "Operands to rotary embedding need to be on same device!": "experimental.rotary_embedding",
    "cos tensor to rotary embedding need to be on same device!": "experimental.rotary_embedding_llama",
    "All tensors must be on same device!": "experimental.rotary_embedding_hf",
    "Operands to update_cache need to be on the same device!": "fill_cache update_cache",
    "Output tensor needs to be on the same device as the input tensor!": "copy assign",
    "gather_codegen: input and index tensors must be on the same device": "gather",
    "Operands to eltwise binary need to be on the same device!":
        "add subtract rsub multiply divide div pow eq ne gt ge lt le maximum minimum logaddexp logaddexp2 "
        "squared_difference logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor bias_gelu ldexp "
        "xlogy add_ subtract_ multiply_ divide_",
}  # fmt: skip
_APART = {f"ttnn.{op}": words for words, ops in _APART.items() for op in ops.split()}


def one_device(name: str, tensors) -> MeshDevice:
    """The device that all operands are on.

    Raises    DeviceRejects where they are not and the library looks; NotEmulated where it would read whatever the
              first operand's device has at the other's address
    """
    device = tensors[0].buffer.device
    for t in tensors:
        if t.buffer.device is not device:
            _refuse(name, tensors, device)
    return device


def _refuse(name: str, tensors, device: MeshDevice):
    i = next(i for i, t in enumerate(tensors) if t.buffer.device is not device)
    if i == 1 and name in _APART:
        raise DeviceRejects(_APART[name])
    other = tensors[i].buffer.device
    raise NotEmulated(
        f"{name}: {tensors[i].spec} is on {other} {other.id()}, the first operand on device {device.id()}; ttnn 0.81.1 "
        "does not look, and reads what lies at that address"
    )
