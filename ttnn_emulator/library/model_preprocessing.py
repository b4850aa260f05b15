"""ttnn.model_preprocessing: the parameters of a torch model as a tree of ttnn tensors.

Source    ttnn 0.81.1, `model_preprocessing.py`: what becomes of each kind of module and in which form
"""

from __future__ import annotations

import inspect

import torch

from .. import dtypes
from ..dtypes import ROW_MAJOR_LAYOUT, TILE_LAYOUT, bfloat16
from ..errors import NotEmulated
from ..ops.core import transfer
from ..tensor import Tensor
from .dot_access import make_dot_access_dict

__all__ = [
    "ParameterDict", "ParameterList", "make_parameter_dict", "preprocess_linear_weight", "preprocess_linear_bias",
    "preprocess_layernorm_parameter", "preprocess_embedding_weight", "default_preprocessor",
    "convert_torch_model_to_ttnn_model", "preprocess_remaining_children_and_parameters", "preprocess_model",
    "preprocess_model_parameters", "move_to_device", "fold_batch_norm2d_into_conv2d", "infer_ttnn_module_args",
    "torch_dtype_to_ttnn_dtype", "make_dot_access_dict",
]  # fmt: skip

torch_dtype_to_ttnn_dtype = {
    torch.uint8: dtypes.uint8, torch.int16: dtypes.uint16, torch.int32: dtypes.int32, torch.int64: dtypes.uint32,
    torch.bfloat16: bfloat16, torch.float32: bfloat16, torch.float64: bfloat16,
}  # fmt: skip


class ParameterList(list):
    """The parameters of a ModuleList."""

    def __contains__(self, index) -> bool:
        return index < len(self)


class ParameterDict(dict):
    """The parameters of a module; names are attributes too, and numbers keys as integers."""

    __getattr__ = dict.__getitem__
    __delattr__ = dict.__delitem__


def make_parameter_dict(dictionary) -> ParameterDict:
    if isinstance(dictionary, ParameterDict):
        return dictionary
    return ParameterDict((k, make_parameter_dict(v) if isinstance(v, dict) else v) for k, v in dictionary.items())


def preprocess_linear_weight(weight, *, dtype, layout=TILE_LAYOUT, weights_mesh_mapper=None) -> Tensor:
    """[out, in] -> [in, out]"""
    return transfer.from_torch(weight.T.contiguous(), dtype, layout=layout, mesh_mapper=weights_mesh_mapper)


def preprocess_linear_bias(bias, *, dtype, layout=TILE_LAYOUT, weights_mesh_mapper=None) -> Tensor:
    """[out] -> [1, out]"""
    return transfer.from_torch(bias.reshape(1, -1), dtype, layout=layout, mesh_mapper=weights_mesh_mapper)


def preprocess_layernorm_parameter(parameter, *, dtype, layout=TILE_LAYOUT) -> Tensor:
    """[features] -> [1, features]"""
    return transfer.from_torch(parameter.reshape(1, -1), dtype, layout=layout)


def preprocess_embedding_weight(weight, *, dtype) -> Tensor:
    """As it is, row by row."""
    return transfer.from_torch(weight, dtype, layout=ROW_MAJOR_LAYOUT)


def default_preprocessor(model, name=None, ttnn_module_args=None) -> ParameterDict:
    """The parameters of a Linear, a LayerNorm or an Embedding; of another module none."""
    if isinstance(model, torch.nn.Linear):
        made = {"weight": preprocess_linear_weight(model.weight, dtype=bfloat16)}
        if model.bias is not None:
            made["bias"] = preprocess_linear_bias(model.bias, dtype=bfloat16)
    elif isinstance(model, torch.nn.LayerNorm):
        made = {n: preprocess_layernorm_parameter(p, dtype=bfloat16) for n, p in model.named_parameters(recurse=False)}
    elif isinstance(model, torch.nn.Embedding):
        made = {"weight": preprocess_embedding_weight(model.weight, dtype=bfloat16)}
    else:
        made = {}
    return make_parameter_dict(made)


def convert_torch_model_to_ttnn_model(model, *, convert_to_ttnn, custom_preprocessor, name, ttnn_module_args=None):
    """The parameters of a module and of those in it: what `custom_preprocessor` gives for it, else the default."""
    again = dict(convert_to_ttnn=convert_to_ttnn, custom_preprocessor=custom_preprocessor)
    if isinstance(model, torch.nn.ModuleList):
        return ParameterList(
            convert_torch_model_to_ttnn_model(child, name=_path(name, i), **again) for i, child in enumerate(model)
        )
    if custom_preprocessor is not None and (made := _custom(custom_preprocessor, model, name, convert_to_ttnn)):
        return make_parameter_dict(made)
    own, children = dict(model.named_parameters(recurse=False)), dict(model.named_children())
    if not convert_to_ttnn(model, name):
        turned = {"weight": model.weight.T.contiguous()} if isinstance(model, torch.nn.Linear) else {}
        parameters = make_parameter_dict(own | turned)
    elif made := default_preprocessor(model, name, ttnn_module_args):
        if len(made) != len(own) + len(children):
            raise RuntimeError("Not all children or parameters were converted using default_preprocessor_parameters!")
        return made
    else:
        parameters = make_parameter_dict(
            {n: transfer.from_torch(p, torch_dtype_to_ttnn_dtype[p.dtype]) for n, p in own.items()}
        )
    for child_name, child in children.items():
        key = int(child_name) if child_name.isdigit() else child_name
        if made := convert_torch_model_to_ttnn_model(child, name=_path(name, key), **again):
            parameters[key] = made
    return parameters


def _path(name, last):
    return f"{name}.{last}" if name else last


def _custom(preprocessor, model, name, convert_to_ttnn):
    known = {"ttnn_module_args": None, "convert_to_ttnn": convert_to_ttnn}
    parameters = list(inspect.signature(preprocessor).parameters)
    if len(parameters) < 2:
        raise RuntimeError("Custom preprocessor must have at least two parameters: model and name")
    for extra in parameters[2:]:
        if extra not in known:
            raise RuntimeError(f"Unsupported parameter: {extra}")
    return preprocessor(model, name, **{n: known[n] for n in parameters[2:]})


def preprocess_remaining_children_and_parameters(
    model, name, convert_to_ttnn, custom_preprocessor, parameters, ttnn_module_args=None, *,
    already_preprocessed_children,
):  # fmt: skip
    """Adds to `parameters` those of the children that are not there yet."""
    for child_name, child in model.named_children():
        if child_name not in already_preprocessed_children:
            parameters[child_name] = convert_torch_model_to_ttnn_model(
                child, name=name, convert_to_ttnn=convert_to_ttnn, custom_preprocessor=custom_preprocessor
            )
    return parameters


def move_to_device(object, device):
    """The tensors of a tree of parameters on a device."""
    if isinstance(object, dict):
        for name, value in list(object.items()):
            object[name] = move_to_device(value, device)
        return object
    if isinstance(object, list):
        object[:] = [move_to_device(value, device) for value in object]
        return object
    return transfer.to_device(object, device) if isinstance(object, Tensor) else object


def preprocess_model(
    *, model_name=None, version=None, initialize_model=None, convert_to_ttnn=None, custom_preprocessor=None,
    device=None, prefix="", run_model=None, reader_patterns_cache=None,
) -> ParameterDict:  # fmt: skip
    """The parameters of the model that `initialize_model` makes, on `device` where one is named.

    Differs   nothing is kept on disk, whatever `model_name` and `version` say
    Raises    NotEmulated with `run_model`: arguments of convolutions and pools are read off a run
    """
    if run_model is not None:
        raise NotEmulated("preprocess_model(run_model=...): use preprocess_model_parameters")
    if initialize_model is None:
        raise RuntimeError("initialize_model must be provided")
    model = initialize_model()
    if model.training:
        model.eval()
    with torch.no_grad():
        parameters = convert_torch_model_to_ttnn_model(
            model, convert_to_ttnn=convert_to_ttnn or (lambda *_: True), custom_preprocessor=custom_preprocessor,
            name=prefix,
        )  # fmt: skip
    return move_to_device(parameters, device) if device is not None else parameters


def preprocess_model_parameters(
    *, model_name=None, version=None, initialize_model=None, convert_to_ttnn=None, custom_preprocessor=None,
    device=None, prefix="",
) -> ParameterDict:  # fmt: skip
    """As `preprocess_model`, of parameters alone."""
    return preprocess_model(
        model_name=model_name, version=version, initialize_model=initialize_model, convert_to_ttnn=convert_to_ttnn,
        custom_preprocessor=custom_preprocessor, device=device, prefix=prefix,
    )  # fmt: skip


def fold_batch_norm2d_into_conv2d(conv, bn):
    raise NotEmulated("convolutions have no model in the emulator")


infer_ttnn_module_args = fold_batch_norm2d_into_conv2d
