"""What a model file declares about its weights and its cache, and an HF model that computes with it."""

from contextlib import contextmanager

from bringup.evaluation.layers.activations import FFNS

BLOCK_FORMATS = ("bfloat8_b", "bfloat4_b")
#: Bits of the operands' mantissas that the matrix unit takes, weights and activations; HiFi3 leaves out less than bf16
#: rounds.
BITS = {"LoFi": (5, 7), "HiFi2": (None, 7)}


@contextmanager
def weights_as(hf_model, precision):
    """Inside, the HF model's matrices are on the grids of the declared block formats, and its linear layers take as
    many bits of their operands as the declared fidelity."""
    import torch
    import ttnn

    kept, handles = [], []
    try:
        for name, module in hf_model.named_modules() if precision is not None else ():
            dtype = declared(name, precision)
            if not isinstance(module, torch.nn.Linear):
                continue
            value = weight = module.weight
            if dtype not in (None, ttnn.bfloat16, ttnn.float32):
                value = through(weight.detach().T, dtype).T
            of_weight, of_input = BITS.get(_fidelity(name, precision), (None, None))
            if of_weight:
                value = cut(value.detach(), of_weight)
            if of_input:
                handles.append(module.register_forward_pre_hook(lambda _, x, n=of_input: cut(x[0], n).to(x[0].dtype)))
            if value is not weight:
                kept.append((module, weight))
                # a tied head gets its own
                module.weight = torch.nn.Parameter(value.to(weight.dtype), requires_grad=False)
        yield hf_model
    finally:
        for handle in handles:
            handle.remove()
        for module, weight in kept:
            module.weight = weight


def precision_of(module):
    """What a model file declares: its PRECISION, or its WEIGHT_DTYPE for all weights; None where it says nothing."""
    from bringup.blocks import Precision

    dtype = getattr(module, "WEIGHT_DTYPE", None)
    return getattr(module, "PRECISION", None) or (None if dtype is None else Precision.of(dtype))


PRODUCTS = {"o_proj": "o", "gate_proj": "up", "up_proj": "up", "down_proj": "down", "lm_head": "head"}


def _fidelity(name, precision):
    """That a `Precision` declares for the linear layer of that name."""
    of_each = getattr(precision, "fidelity", {})
    product = PRODUCTS.get(name.rpartition(".")[2], "qkv")
    if product in of_each:
        return of_each[product]
    return str(getattr(getattr(precision, "linear", None), "math_fidelity", "")).rpartition(".")[2]


def cut(x, bits):
    """Mantissas cut off after `bits`, the leading one included."""
    import torch

    mantissa, exponent = torch.frexp(x.float())
    return torch.ldexp((mantissa * 2**bits).trunc() / 2**bits, exponent)


def declared(name, precision):
    """The weight format that a `Precision` declares for the HF module, or for the matrix, of that name."""
    groups = {"self_attn": "attention", **dict.fromkeys(FFNS, "mlp"), "lm_head": "head"}
    parts = name.split(".")
    group = next((group for part, group in groups.items() if part in parts), None)
    if group is None:
        return None
    if product := PRODUCTS.get(parts[-1]) if hasattr(precision, "format") else None:
        found = precision.format(product)
        return getattr(found, "dtype", found)  # of one that also says where the weight lies
    return getattr(precision, group, None)


def cache_format(precision):
    """Rounds keys or values [.., width] as the declared cache does; None where that is what activations are anyway."""
    import ttnn

    dtype = getattr(precision, "cache", None)
    return None if dtype in (None, ttnn.bfloat16, ttnn.float32) else lambda x: through(x, dtype).to(x.dtype)


def through(x, dtype):
    """x [.., n, m] rounded to the grid of `dtype` along its last dim, as a tiled device tensor holds it."""
    import ttnn

    flat = x.float().reshape(-1, x.shape[-1]).contiguous()
    return ttnn.to_torch(ttnn.from_torch(flat, dtype=dtype, layout=ttnn.TILE_LAYOUT)).float().reshape(x.shape)


def formats(model, layer, point, precision, coarser=False):
    """Which of the weights behind a point are in another format than the model file declares, or in a coarser one."""
    import ttnn

    part = point.split(".")[0]
    name = part if part == "lm_head" else f"model.layers.{layer}.{part}" if layer is not None else f"model.{part}"
    module = dict(model.named_modules()).get(name) if model is not None else None
    if module is None or precision is None or declared(name, precision) is None:
        return None
    matrices = {n: w for n, w in vars(module).items() if isinstance(w, ttnn.Tensor) and w.shape[-2] > ttnn.TILE_SIZE}
    held = {n: w.dtype for n, w in matrices.items() if tuple(w.shape)[:-2] == (1, 1)}  # a cache has users there
    want = {n: declared(f"{name}.{n}", precision) for n in held}
    wrong = {n: dtype for n, dtype in held.items() if dtype != want[n]}
    if coarser:
        wrong = {n: dtype for n, dtype in wrong.items() if _grid(dtype) > _grid(want[n])}
    if not wrong:
        return None
    said = ", ".join(dict.fromkeys(word(want[n]) for n in wrong))
    return f"on the device {', '.join(f'{n} is {word(d)}' for n, d in wrong.items())}; the model file declares {said}"


def _grid(dtype):
    """How coarse: 0 for a format of its own exponents."""
    return BLOCK_FORMATS.index(word(dtype)) + 1 if word(dtype) in BLOCK_FORMATS else 0


def word(dtype):
    return str(dtype).rpartition(".")[2].lower()
