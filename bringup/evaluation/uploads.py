"""What happens while a model file builds its model, seen from `ttnn.from_torch`: progress, and memory given back."""

from contextlib import contextmanager

from bringup.checkpoints import mapped
from bringup.console import progress

RELEASE_BYTES = 1 << 30  # mapped weights that may become resident before they are given back
NAMES = ("from_torch", "as_tensor")


@contextmanager
def watched(hf_model, weight_files):
    """Inside, each floating tensor that `ttnn` is given counts as that part of the HF model's weights.

    After each GiB the pages of the weight files are given back, and at the end the rest: build_model reads a weight,
    the device has it, and the host need not. Nothing in a model file need know of this.
    """
    import ttnn

    total = sum(p.numel() for p in hf_model.parameters())
    given = since = 0
    originals = {name: getattr(ttnn, name) for name in NAMES if hasattr(ttnn, name)}

    def seen(function):
        def call(tensor, *args, **kwargs):
            nonlocal given, since
            made = function(tensor, *args, **kwargs)
            if getattr(tensor, "is_floating_point", bool)():
                part = min(tensor.numel(), total - given)  # a tied head is given twice
                given += part
                since += tensor.numel() * tensor.element_size()
                advance(part / 1e6)
                if since >= RELEASE_BYTES:
                    mapped.release(weight_files)
                    since = 0
            return made

        return call

    with progress("building the model, million weights", total / 1e6) as advance:
        for name, function in originals.items():
            setattr(ttnn, name, seen(function))
        try:
            yield
        finally:
            for name, function in originals.items():
                setattr(ttnn, name, function)
            mapped.release(weight_files)
