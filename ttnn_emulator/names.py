"""ttnn's namespaces: where ops hang, and what is said about a name that is not there."""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import json
import sys
import types

from .errors import NotEmulated
from .op import REGISTRY


@functools.cache
def library_names() -> dict[str, list[str]]:
    """The names that ttnn 0.81.1 has, by namespace."""
    return json.loads(importlib.resources.files(__package__).joinpath("names.json").read_text())


def unknown(namespace: str, name: str) -> AttributeError:
    """What to raise for a name that the emulator does not have: NotEmulated where the library has it."""
    if name.startswith("__"):
        return AttributeError(name)
    module = sys.modules.get(namespace.replace("ttnn", __package__, 1))
    near = difflib.get_close_matches(name, [n for n in dir(module) if not n.startswith("_")], 1)
    hint = f"; the nearest emulated name is {namespace}.{near[0]}" if near else ""
    if name in library_names().get(namespace, ()):
        return NotEmulated(f"{namespace}.{name} has no model in the emulator{hint}")
    return NotEmulated(f"{namespace}.{name} is neither emulated nor a name of ttnn 0.81.1{hint}")


def namespace(name: str) -> types.ModuleType:
    """A module `ttnn_emulator.<name>` for ops called `ttnn.<name>.<op>`."""
    module = types.ModuleType(f"{__package__}.{name}", f"Ops of ttnn.{name}.")
    module.__getattr__ = lambda attribute: (_ for _ in ()).throw(unknown(f"ttnn.{name}", attribute))
    sys.modules[module.__name__] = module
    return module


#: Modules of the library that hold under another name what also stands at the top: they lead there.
MIRRORS = (
    "types", "core", "distributed", "operations", "operations.binary", "operations.ccl", "operations.comparison",
    "operations.core", "operations.creation", "operations.data_movement", "operations.embedding", "operations.matmul",
    "operations.normalization", "operations.reduction", "operations.ternary", "operations.transformer",
    "operations.unary",
)  # fmt: skip


#: Where the library defines what cannot be copied or pickled: its bound classes, all but the enums.
BOUND = {
    "tensor": "Tensor TensorSpec MemoryConfig ShardSpec CoreCoord CoreRange CoreRangeSet Tile",
    "multi_device": "MeshDevice MeshShape MeshCoordinate MeshMapperConfig MeshComposerConfig PlacementShard "
        "PlacementReplicate",
    "types": "Shape CoreGrid QueueId",
    "activation": "UnaryWithParam",
    "operations.trace": "MeshTraceId",
    "operations.core": "WormholeComputeKernelConfig",
    "operations.transformer": "SDPAProgramConfig",
    "operations.normalization": "LayerNormDefaultProgramConfig LayerNormShardedMultiCoreProgramConfig "
        "SoftmaxDefaultProgramConfig SoftmaxShardedMultiCoreProgramConfig",
    "operations.matmul": "MatmulMultiCoreReuseProgramConfig "
        "MatmulMultiCoreReuseMultiCastProgramConfig MatmulMultiCoreReuseMultiCast1DProgramConfig "
        "MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig",
}  # fmt: skip


def refuse_copies(root: types.ModuleType) -> None:
    """copy.copy, copy.deepcopy and pickle raise the library's TypeError for its classes (ttnn 0.81.1, asked)."""
    for room, classes in BOUND.items():
        for name in classes.split():

            def refuse(self, protocol, what=f"ttnn._ttnn.{room}.{name}"):
                raise TypeError(f"cannot pickle '{what}' object")

            getattr(root, name).__reduce_ex__ = refuse


def mirror(root: types.ModuleType, path: str) -> None:
    """Hangs a module at `path` whose names are those of `root` (of `root.transformer` for operations.transformer)."""
    *parents, last = path.split(".")
    module = types.ModuleType(f"{__package__}.{path}", f"What ttnn.{path} has is at the top of ttnn.")
    source = root.transformer if path == "operations.transformer" else root
    module.__getattr__ = lambda name: getattr(source, name)
    sys.modules[module.__name__] = module
    owner = root
    for part in parents:
        owner = vars(owner)[part]
    setattr(owner, last, module)


def attach(root: types.ModuleType) -> None:
    """Hangs every registered op where its name says."""
    for name, call in REGISTRY.items():
        *path, last = name.split(".")[1:]
        at = root
        for part in path:
            if part not in vars(at):
                setattr(at, part, namespace(part))
            at = vars(at)[part]
        setattr(at, last, call)
    refuse_copies(root)
    for path in MIRRORS:
        mirror(root, path)
