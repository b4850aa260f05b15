"""What a model file declares about its weights and its cache, and an HF model that computes with it."""

from contextlib import contextmanager

BLOCK_FORMATS = ("bfloat8_b", "bfloat4_b")


@contextmanager
def weights_as(hf_model, precision):
    """The HF model's matrices on the grids of the declared block formats inside the block."""
    import torch
    import ttnn

    kept = []
    try:
        for name, module in hf_model.named_modules() if precision is not None else ():
            dtype = declared(name, precision)
            if isinstance(module, torch.nn.Linear) and dtype not in (None, ttnn.bfloat16, ttnn.float32):
                kept.append((module, module.weight))
                value = through(module.weight.detach().T, dtype).T.to(module.weight.dtype)
                module.weight = torch.nn.Parameter(value, requires_grad=False)  # a tied head gets its own
        yield hf_model
    finally:
        for module, weight in kept:
            module.weight = weight


def precision_of(module):
    """What a model file declares: its PRECISION, or its WEIGHT_DTYPE for all weights; None where it says nothing."""
    from bringup.blocks import Precision

    dtype = getattr(module, "WEIGHT_DTYPE", None)
    return getattr(module, "PRECISION", None) or (None if dtype is None else Precision.of(dtype))


def declared(name, precision):
    """The weight format that a `Precision` declares for the HF module, or for the matrix, of that name."""
    groups = {"self_attn": "attention", "mlp": "mlp", "lm_head": "head"}
    products = {"o_proj": "o", "gate_proj": "up", "up_proj": "up", "down_proj": "down", "lm_head": "head"}
    parts = name.split(".")
    group = next((group for part, group in groups.items() if part in parts), None)
    if group is None:
        return None
    if product := products.get(parts[-1]) if hasattr(precision, "format") else None:
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
