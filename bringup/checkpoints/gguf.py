"""GGUF files: which one a path means, what its header says, and the HF configuration in its metadata.

The header is walked here before a library reads it: the libraries believe its counts, and run out of memory or time.
"""

import json
import math
import struct
from pathlib import Path

from bringup.errors import BadInput, shown

MAGIC = b"GGUF"
VERSIONS = (2, 3)
#: Bytes of the metadata's values by type: u8 i8 u16 i16 u32 i32 f32 bool, u64 i64 f64; strings and arrays are apart.
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
MOST_DIMENSIONS = 4  # ggml's GGML_MAX_DIMS
LONGEST_NAME = 1 << 16
#: Tensors that transformers leaves out: factors of the rotation, which are the configuration's in HF.
ROTATION = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def find(path):
    """The GGUF file that a path means: itself, or the only one of a directory without weights of HF's; or None."""
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.gguf"))
        if not files or any(path.glob("*.safetensors*")) or any(path.glob("pytorch_model.*")):
            return None
        if len(files) > 1:
            raise BadInput(f"which GGUF file of {shown(path)}?", got=", ".join(f.name for f in files), want="one")
        return files[0]
    return path if path.suffix.lower() == ".gguf" and path.is_file() else None


def config_beside(file):
    """The config.json beside a GGUF file, which then is the model's; or None."""
    beside = file.with_name("config.json")
    return beside if beside.is_file() else None


def tensors(file):
    """{name: (shape, type's name)} of a file whose header is sound and whose tensors are all in it.

    Raises    BadInput for everything else
    """
    require()
    try:
        with file.open("rb") as stream:
            return _Header(stream, file).tensors()
    except OSError as error:
        raise BadInput(f"cannot read {shown(file)}", got=error.strerror) from error


def fields(file):
    """The fields of the HF configuration that transformers makes of the metadata, as config.json would have them."""
    from transformers import PretrainedConfig

    names = tensors(file)
    if left := [name for name in ROTATION if name in names]:
        raise BadInput(
            f"{shown(file)} keeps its rotation's scaling in {left[0]}, which transformers does not read",
            want="the model's config.json beside the file, which says how positions are scaled",
        )
    try:
        found, _ = PretrainedConfig.get_config_dict(file.parent, gguf_file=file.name, local_files_only=True)
        return {k: decimal(v) for k, v in json.loads(json.dumps(found)).items()}
    except Exception as error:  # whatever metadata that lacks something makes the library raise
        said = " ".join(str(error).split())[:400]
        raise BadInput(f"transformers cannot read {shown(file)}", got=f"{type(error).__name__}: {said}") from error


def decimal(value):
    """A float32 as a person writes it: 1e-05, not 9.999999747378752e-06."""
    import numpy as np

    return float(str(np.float32(value))) if isinstance(value, float) and value == np.float32(value) else value


def require():
    """Raises BadInput where what reads GGUF is not installed."""
    from importlib.util import find_spec

    if missing := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise BadInput(
            f"GGUF files need {' and '.join(missing)}",
            hint="pip install 'ttnn-bringup[gguf]'; or pip install gguf accelerate",
        )


class _Header:
    """A walk over a file's header that believes no count which the rest of the file could not hold."""

    def __init__(self, stream, file):
        self.stream, self.file = stream, file
        self.size, self.at = file.stat().st_size, 0

    def tensors(self):
        if self.take(4) != MAGIC:
            raise self.bad("it does not begin with GGUF", "git lfs pull, where it is a pointer; else fetch it again")
        version = self.number("I")
        if version not in VERSIONS:
            want = " or ".join(map(str, VERSIONS))
            raise self.bad(f"version {version}, where {want} (little endian) is read")
        n_tensors, n_values = self.count("tensors", 24), self.count("values of metadata", 13)
        alignment = 32
        for _ in range(n_values):
            key, kind = self.string(LONGEST_NAME), self.number("I")
            start = self.at
            self.skip_value(kind)
            if key == b"general.alignment" and kind == 4:
                self.stream.seek(start)
                alignment = struct.unpack("<I", self.stream.read(4))[0]
        if not 1 <= alignment <= 1 << 20:
            raise self.bad(f"general.alignment = {alignment}")
        found = [self.tensor() for _ in range(n_tensors)]
        data = -(-self.at // alignment) * alignment
        for name, _, _, offset, n_bytes in found:
            if data + offset + n_bytes > self.size:
                raise self.bad(f"{name} ends at byte {data + offset + n_bytes} of {self.size}: the file is not whole")
        names = {name: (shape, kind) for name, shape, kind, *_ in found}
        if len(names) != n_tensors:
            raise self.bad("two tensors have one name")
        return names

    def tensor(self):
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self.string(LONGEST_NAME).decode(errors="backslashreplace")
        n = self.number("I")
        if not 1 <= n <= MOST_DIMENSIONS:
            raise self.bad(f"{name} has {n} dimensions")
        shape = [self.number("Q") for _ in range(n)][::-1]
        number, offset = self.number("I"), self.number("Q")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            raise self.bad(f"{name} is of an unknown type, {number}") from None
        block, n_bytes = GGML_QUANT_SIZES[kind]
        if not all(shape) or shape[-1] % block:
            raise self.bad(f"{name} is {shape} of {kind.name}, whose blocks have {block} values")
        return name, tuple(shape), kind.name, offset, math.prod(shape) // block * n_bytes

    def skip_value(self, kind):
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            kind = self.number("I")
            if kind == STRING:
                for _ in range(self.count("strings", 8)):
                    self.string()
            elif kind in WIDTHS:
                self.skip(self.count("values", WIDTHS[kind]) * WIDTHS[kind])
            else:
                raise self.bad(f"an array of type {kind} in its metadata")
        elif kind in WIDTHS:
            self.skip(WIDTHS[kind])
        else:
            raise self.bad(f"a value of type {kind} in its metadata")

    def string(self, longest=None):
        n = self.number("Q")
        if n > min(self.size - self.at, longest or self.size):
            raise self.bad(f"a text of {n} bytes at byte {self.at} of {self.size}")
        if longest:
            return self.take(n)
        return self.skip(n)

    def count(self, what, least):
        """A number of things that take at least so many bytes each."""
        n = self.number("Q")
        if n * least > self.size - self.at:
            raise self.bad(f"{n} {what} at byte {self.at} of {self.size}")
        return n

    def number(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def take(self, n):
        found = self.stream.read(n)
        self.at += n
        if len(found) < n:
            raise self.bad(f"it ends in its header, at byte {self.size}")
        return found

    def skip(self, n):
        self.stream.seek(n, 1)
        self.at += n

    def bad(self, got, hint="fetch it again"):
        return BadInput(f"{shown(self.file)} is no GGUF file that can be read", got=got, hint=hint)
