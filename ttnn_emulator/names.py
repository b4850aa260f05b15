"""ttnn's namespaces: where ops and other names hang, and what is said about a name that is not there."""

from __future__ import annotations

import difflib
import functools
import importlib.machinery
import importlib.resources
import json
import sys
import types

from .errors import NotEmulated
from .instead import hang, instead
from .op import REGISTRY
from .semaphore import GlobalSemaphore


@functools.cache
def _read() -> dict:
    return json.loads(importlib.resources.files(__package__).joinpath("names.json").read_text())


@functools.cache
def library_names() -> dict[str, frozenset[str]]:
    """The names that ttnn 0.81.1 has, by namespace: its modules, also those of `ttnn._ttnn`, as imported."""
    found = _read()
    spaces = {path: frozenset(names.split()) for path, names in found["namespaces"].items()}
    return spaces | {path: spaces[leads_to] for path, leads_to in found["aliases"].items() if leads_to in spaces}


def unknown(namespace: str, name: str) -> AttributeError:
    """What to raise for a name that the emulator does not have: NotEmulated where the library has it."""
    if name.startswith("__"):
        return AttributeError(name)
    root = sys.modules[__package__]
    near = difflib.get_close_matches(name, [n for n in vars(root) if not n.startswith("_")], 1)
    hint = f"; the nearest emulated name is ttnn.{near[0]}" if near else ""
    if name in library_names().get(namespace, ()):
        return NotEmulated(f"{namespace}.{name} has no model in the emulator{instead(name, namespace) or hint}")
    if name in _read()["imports"].get(namespace, "").split():
        return NotEmulated(f"{namespace}.{name} is not ttnn's own: the library's module imports it; import it yourself")
    return AttributeError(f"{namespace}.{name} is neither emulated nor a name of ttnn 0.81.1{hint}")


class _NoModel(type):
    """Of the library's classes that the emulator has no model of: they can be named, in annotations say."""

    def __call__(cls, *args, **kwargs):
        words = instead(cls.__name__)
        raise NotEmulated(f"ttnn.{cls.__name__} has no model in the emulator{words}; it can be named, not made")

    def __getattr__(cls, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotEmulated(f"ttnn.{cls.__name__}.{name}: ttnn.{cls.__name__} has no model in the emulator")


@functools.cache
def _class(name: str) -> type:
    return _NoModel(name, (), {"__module__": "ttnn", "__doc__": "A class of ttnn 0.81.1 without a model here."})


def look_up(namespace: str, name: str):
    """A name that the emulator does not define: the library's class of that name, or what to raise."""
    if name in _read()["classes"].get(namespace, "").split():
        return _class(name)
    raise unknown(namespace, name)


class Namespace(types.ModuleType):
    """A module of the library: its own names, and of those that the library has here also what stands elsewhere."""

    def __init__(self, path: str, root: types.ModuleType):
        super().__init__(f"{__package__}.{path}", f"What ttnn.{path} has.")
        self._path, self._root = f"ttnn.{path}", root
        self.__path__ = []  # `import ttnn.a.b`: what is below it is hung by `attach`

    def __getattr__(self, name: str):
        other_chip = "quasar" in self._path  # has names of its own that are as others' and not the same
        if not other_chip and not name.startswith("_") and name in library_names().get(self._path, ()):
            for place in (self._root, self._root.transformer, self._root.experimental, self._twin()):
                if name in vars(place):
                    return vars(place)[name]
        return look_up(self._path, name)

    def _twin(self):
        """Of a module below `ttnn._ttnn`, the one of the same name in front."""
        place = self._root
        for part in self._path.removeprefix("ttnn.").removeprefix("_ttnn.").split("."):
            place = vars(place).get(part, self)
        return place

    def __dir__(self):
        return sorted({*super().__dir__(), *library_names().get(self._path, ())})


class _Imported(types.ModuleType):
    """What `from ttnn.x import name` gives for a function of the library without a model: calling it is refused."""

    def __call__(self, *args, **kwargs):
        raise NotEmulated(self.__doc__)


class _Importer:
    """Lets programs import functions that they may never call; asking whether a module has them still says no."""

    @staticmethod
    def find_spec(fullname: str, path=None, target=None):
        space, _, name = fullname.rpartition(".")
        root, _, inner = space.partition(".")
        namespace = f"ttnn.{inner}" if inner else "ttnn"
        names = library_names().get(namespace)
        private = name.startswith("_") and not name.startswith("__") and names is not None and namespace != "ttnn"
        if root != __package__ or names is None or not (private or name in names):
            return None
        return importlib.machinery.ModuleSpec(fullname, _Importer, origin=namespace)

    @staticmethod
    def create_module(spec):
        name = spec.name.rpartition(".")[2]
        private = f"{spec.origin}.{name} has no model in the emulator: a name with _ is the library's own"
        return _Imported(spec.name, private if name.startswith("_") else str(unknown(spec.origin, name)))

    @staticmethod
    def exec_module(module) -> None:
        """There is nothing to run."""


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


def attach(root: types.ModuleType) -> None:
    """Hangs every registered op where its name says, and the library's modules with what they have."""
    spaces = {path.partition(".")[2]: None for path in library_names() if path != "ttnn"}
    for path in sorted(spaces):
        _hang(root, path)
    for name, call in REGISTRY.items():
        path, _, last = name.partition(".")[2].rpartition(".")
        setattr(_at(root, path), last, call)
    refuse_copies(root)
    _at(root, "_ttnn.global_semaphore").global_semaphore = GlobalSemaphore
    hang(root)
    sys.meta_path.append(_Importer)  # type: ignore[arg-type]
    from .library import PLACES, SPACES

    for path, enums in PLACES.items():
        for enum in enums:
            setattr(_at(root, path), enum.__name__, enum)

    for path, module in SPACES.items():
        space = _at(root, path)
        for name in module.__all__:
            for there, at in ((f"ttnn.{path}", space), ("ttnn", root)):
                if name in library_names()[there] and (at is space or name not in vars(root)):
                    setattr(at, name, getattr(module, name))


def _at(root: types.ModuleType, path: str):
    for part in filter(None, path.split(".")):
        root = vars(root)[part]
    return root


def _hang(root: types.ModuleType, path: str) -> None:
    """A namespace at `path`, and the ones above it."""
    parent, _, last = path.rpartition(".")
    if parent:
        _hang(root, parent)
    owner = _at(root, parent)
    if type(vars(owner).get(last)) is not Namespace:
        space = Namespace(path, root)
        setattr(owner, last, space)
        sys.modules.setdefault(space.__name__, space)  # the emulator's own modules keep theirs
