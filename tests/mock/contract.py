"""Recorded calls of ttnn 0.81.1, made again, on the library or on the emulator. `data/contract.jsonl.gz` is the record,
`data/contract_blackhole.jsonl.gz` that of Blackhole.

A case has `op`, `system`, `args`, `kwargs`, and what came of it: `out` or `error`. Values are JSON; one with a "t" is
an object of that type. Tensors are given by their specs; their contents were zeros.
"""

import gzip
import json
import re
from pathlib import Path

import torch

RECORDS = [Path(__file__).parents[1] / f"data/{name}.jsonl.gz" for name in ("contract", "contract_blackhole")]


def cases(system, *paths):
    found = []
    for path in paths or RECORDS:
        with gzip.open(path, "rt") as file:
            found += [case for case in map(json.loads, file) if case["system"] == system]
    return found


def sample(system):
    """A few calls of every op that were accepted, and a few that were refused: those of the least ids.

    Left out are calls that depend on what came before, and those that end the library's process.
    """
    chosen, found = {}, []
    for case in sorted(cases(system), key=lambda case: case["id"]):
        error = case.get("error", {}).get("type")
        kept = chosen.setdefault((case["op"], error is None), [])
        if len(kept) < 2 and not case.get("stateful") and error != "ProcessCrash":
            kept.append(case)
            found.append(case)
    return found


class Calls:
    """Makes recorded calls on a library and its open device."""

    def __init__(self, ttnn, device):
        self.ttnn, self.device = ttnn, device

    def disagreement(self, case):
        """What is not as it was recorded, or None."""
        function = self.ttnn
        for name in case["op"].split(".")[1:]:
            function = getattr(function, name)
        args = [self.value(v) for v in case["args"]]
        if case["op"].endswith("__getitem__") and isinstance(args[1], list):
            args[1] = tuple(args[1])
        kwargs = {name: self.value(v) for name, v in case["kwargs"].items()}
        expected = case.get("error")
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            if expected is None:
                return f"refused: {str(error).strip()[:300]}"
            if expected["type"] not in [kind.__name__ for kind in type(error).__mro__]:
                return f"raised {type(error).__name__}, not {expected['type']}"
            if expected["type"] == "TypeError" or _flat(expected["message"].splitlines()[-1]) in _flat(str(error)):
                return None
            return f"other words: {str(error).strip()[:300]}"
        if expected is not None:
            return f"accepted, and was refused: {expected['message']}"
        wrong = list(self.differences(case["out"], result))
        return f"{', '.join(wrong)} differ; {case['out']}" if wrong else None

    # -- arguments
    def value(self, v):
        if isinstance(v, list):
            return [self.value(each) for each in v]
        if not isinstance(v, dict):
            return v
        kind = v.get("t")
        if kind is None:
            return {name: self.value(each) for name, each in v.items()}
        if hasattr(self, f"_{kind}"):
            return getattr(self, f"_{kind}")(v)
        if kind in ("enum", "ShardStrategy", "ShardOrientation"):
            owner, name = v["v"].split(".")[-2:]
            return getattr(getattr(self.ttnn, owner), name)
        assert kind.endswith("Config"), v
        return getattr(self.ttnn, kind)(**{n: self.value(x) for n, x in v.items() if n != "t" and _is_said(x)})

    def _tensor(self, v):
        ttnn, shape = self.ttnn, list(v["shape"])
        name = v["dtype"]
        kind = torch.int32 if "int" in name else torch.float32 if name == "float32" else torch.bfloat16
        how = {"dtype": getattr(ttnn, name), "layout": self._layout({"v": v["layout"]})}
        if v.get("storage") == "host":
            return ttnn.from_torch(_zeros(shape, kind), **how)
        how |= {"device": self.device, "memory_config": self._memory_config(v["memory_config"])}
        if "mesh" in v:
            sizes = v["mesh"]["distribution_shape"]
            placements = [_shard_dim(p) for p in v["mesh"]["placements"]]
            for n, dim in zip(sizes, placements, strict=True):
                if dim is not None:
                    shape[dim] *= n
            how["mesh_mapper"] = self._mapper_of(placements)
        tensor = ttnn.from_torch(_zeros(shape, kind), **how)
        if v.get("allocated") is False:
            ttnn.deallocate(tensor)
        return tensor

    def _mapper_of(self, dims):
        ttnn = self.ttnn
        if len(dims) > 1:
            return ttnn.create_mesh_mapper(self.device, ttnn.MeshMapperConfig([self._placement(d) for d in dims]))
        if dims[0] is None:
            return ttnn.ReplicateTensorToMesh(self.device)
        return ttnn.ShardTensorToMesh(self.device, dim=dims[0])

    def _placement(self, dim):
        return self.ttnn.PlacementReplicate() if dim is None else self.ttnn.PlacementShard(dim)

    def _memory_config(self, v):
        ttnn, shards = self.ttnn, v.get("shard_spec")
        place = [getattr(ttnn.TensorMemoryLayout, v["memory_layout"]), getattr(ttnn.BufferType, v["buffer_type"])]
        if shards:
            orientation = getattr(ttnn.ShardOrientation, shards["orientation"])
            cores = self._core_range_set({"v": shards["grid"]})
            place.append(ttnn.ShardSpec(cores, list(shards["shape"]), orientation))
        return ttnn.MemoryConfig(*place)

    def _core_range_set(self, v):
        core = self.ttnn.CoreCoord
        ranges = [self.ttnn.CoreRange(core(x0, y0), core(x1, y1)) for x0, y0, x1, y1 in v["v"]]
        return self.ttnn.CoreRangeSet(ranges)

    def _tensor_spec(self, v):
        ttnn, layout = self.ttnn, self._layout({"v": v["layout"]})
        kind = getattr(ttnn.BufferType, v["memory_config"]["buffer_type"])
        return ttnn.TensorSpec(ttnn.Shape(v["shape"]), getattr(ttnn, v["dtype"]), layout, buffer_type=kind)

    def _mapper(self, v):
        return getattr(self.ttnn, v["fn"])(self.device, *self.value(v["args"]), **self.value(v["kwargs"]))

    _composer = _mapper

    def _UnaryWithParam(self, v):
        name = re.search(r"UnaryOpType::(\w+)", v["v"]).group(1)
        return self.ttnn.UnaryWithParam(getattr(self.ttnn.UnaryOpType, name))

    def _global_semaphore(self, v):
        x, y = self.device.compute_with_storage_grid_size()
        return self.ttnn.create_global_semaphore(self.device, self._core_range_set({"v": [[0, 0, x - 1, y - 1]]}), 0)

    def _MinimalMatmulConfig(self, v):
        numbers = dict(re.findall(r"(\w+)=([\d-]+)", v["v"]))
        x, y = map(int, numbers.pop("compute_with_storage_grid_size").split("-"))
        sizes = {name: int(n) for name, n in numbers.items()}
        return self.ttnn.MinimalMatmulConfig(**sizes, compute_with_storage_grid_size=self.ttnn.CoreCoord(x, y))

    def _MeshMapperConfig(self, v):
        return self.ttnn.MeshMapperConfig([self._placement(_shard_dim(p)) for p in v["placements"]])

    def _MeshComposerConfig(self, v):
        return self.ttnn.MeshComposerConfig(v["dims"])

    def _torch(self, v):
        return _zeros(v["shape"], getattr(torch, v["dtype"]))

    def _device(self, v):
        return self.device

    def _dtype(self, v):
        return getattr(self.ttnn, v["v"])

    def _layout(self, v):
        return getattr(self.ttnn, v["v"] + "_LAYOUT")

    def _slice(self, v):
        return slice(*v["v"])

    def _ellipsis(self, v):
        return Ellipsis

    def _shape(self, v):
        return self.ttnn.Shape(v["v"])

    def _core_grid(self, v):
        return self.ttnn.CoreGrid(x=v["x"], y=v["y"])

    def _torch_dtype(self, v):
        return getattr(torch, v["v"].removeprefix("torch."))

    # -- results
    def differences(self, want, got):
        """The names of what `got` has otherwise than recorded."""
        if isinstance(want, list):
            if not isinstance(got, (list, tuple)) or len(got) != len(want):
                yield "length"
                return
            for w, g in zip(want, got, strict=True):
                yield from self.differences(w, g)
        kind = want.get("t") if isinstance(want, dict) else None
        if kind == "torch":
            found = {"shape": list(got.shape), "dtype": str(got.dtype).removeprefix("torch.")}
            yield from (name for name in found if found[name] != want[name])
        elif kind == "memory_config":
            yield from _memory_differences(want, got)
        elif kind == "tensor":
            found = {
                "shape": list(got.shape),
                "padded_shape": list(got.padded_shape),
                "dtype": got.dtype.name.lower(),
                "layout": got.layout.name.removesuffix("_LAYOUT"),
                "storage": "host" if got.storage_type() == self.ttnn.StorageType.HOST else None,
            }
            yield from (n for n in found if found[n] != want.get(n, want["shape"] if n == "padded_shape" else None))
            if "mesh" in want:
                topology = got.tensor_topology()
                spread = [str(p) for p in topology.placements()]
                recorded = (want["mesh"]["distribution_shape"], want["mesh"]["placements"])
                if (list(topology.distribution_shape()), spread) != recorded:
                    yield "mesh"
            if "memory_config" in want and want.get("storage") != "host":
                yield from _memory_differences(want["memory_config"], got.memory_config())


def _zeros(shape, dtype):
    """Zeros that take no memory: recorded tensors go up to 16 GiB."""
    return torch.zeros((), dtype=dtype).expand(shape)


def _memory_differences(want, got):
    if (got.memory_layout.name, got.buffer_type.name) != (want["memory_layout"], want["buffer_type"]):
        yield "memory_config"
    elif shards := want.get("shard_spec"):
        own = got.shard_spec
        grid = own and sorted([r.start.x, r.start.y, r.end.x, r.end.y] for r in own.grid.ranges())
        if own is None or (list(own.shape), grid) != (list(shards["shape"]), sorted(shards["grid"])):
            yield "shard_spec"


def _shard_dim(placement):
    found = re.search(r"Shard\((-?\d+)\)", placement)
    return int(found.group(1)) if found else None


def _is_said(v):
    empty_cores = isinstance(v, dict) and v.get("t") == "core_range_set" and not v["v"]
    return v is not None and not empty_cores


def _flat(text):
    return " ".join(text.split())
