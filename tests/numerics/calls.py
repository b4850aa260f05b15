"""A recorded call, as the index writes it, made on the emulator.

`op` is the function's name ("program": `kwargs.steps` is a list of calls), `inputs` say shape, dtype, layout and
memory, `kwargs` may hold "input N" for an input, "step N" for the result of an earlier step, and {"type": NAME, ...}
for an object of the library's with these arguments; `args` are further positional ones.
"""

import torch

import ttnn_emulator as ttnn

DTYPES = {
    "bf16": ttnn.bfloat16, "bfp8": ttnn.bfloat8_b, "bfp4": ttnn.bfloat4_b, "fp32": ttnn.float32, "u32": ttnn.uint32,
    "i32": ttnn.int32, "u16": ttnn.uint16, "u8": ttnn.uint8, "bfloat16": ttnn.bfloat16, "bfloat8_b": ttnn.bfloat8_b,
    "float32 -> bfloat16": ttnn.bfloat16,
}  # fmt: skip
LAYOUTS = {"TILE": ttnn.TILE_LAYOUT, "ROW_MAJOR": ttnn.ROW_MAJOR_LAYOUT}
#: Enums that are written as objects.
ENUMS = ("GeluVariant", "SigmoidMode")
#: Named arguments that the op takes by position.
POSITIONAL = ("scalar", "token_index", "starts", "ends", "shape", "batch_idx")


def memory(given):
    """A memory config by its name, or sharded: strategy, shard, and a grid [columns, rows] or rectangles."""
    if isinstance(given, str):
        return getattr(ttnn, f"{given}_MEMORY_CONFIG")
    grid = given["grid"]
    corners = [[0, 0, grid[0] - 1, grid[1] - 1]] if isinstance(grid[0], int) else grid
    cores = ttnn.CoreRangeSet([ttnn.CoreRange((x0, y0), (x1, y1)) for x0, y0, x1, y1 in corners])
    shard = ttnn.ShardSpec(cores, given["shape"], ttnn.ShardOrientation[given.get("orientation", "ROW_MAJOR")])
    layout = ttnn.TensorMemoryLayout[given["strategy"] + "_SHARDED"]
    return ttnn.MemoryConfig(layout, ttnn.BufferType[given.get("buffer", "L1")], shard)


def upload(values, entry, device):
    where = {"memory_config": memory(entry["memory"])} if entry.get("memory") else {}
    return ttnn.from_torch(
        values, dtype=DTYPES[entry["dtype"]], layout=LAYOUTS[entry["layout"]], device=device, **where
    )


def _config(given):
    if given in (None, "default"):
        return {}
    fidelity = ttnn.MathFidelity[given["math_fidelity"]]
    return {"compute_kernel_config": ttnn.WormholeComputeKernelConfig(**given | {"math_fidelity": fidelity})}


def _object(given, known):
    kind, rest = given["type"], {k: v for k, v in given.items() if k != "type"}
    if kind in ENUMS:
        return getattr(ttnn, kind)[rest["value"]]
    if kind == "UnaryWithParam":
        return ttnn.UnaryWithParam(ttnn.UnaryOpType[rest["op"]], *rest.get("params", ()))
    made = {k: argument(k, v, known) for k, v in rest.items()}
    if isinstance(made.get("compute_with_storage_grid_size"), list):
        made["compute_with_storage_grid_size"] = ttnn.CoreCoord(*made["compute_with_storage_grid_size"])
    return getattr(ttnn, kind)(**made)


def argument(name, value, known):
    """The value of an argument; `known`: what "input N" and "step N" stand for."""
    if isinstance(value, str) and value in known:
        return known[value]
    if isinstance(value, dict) and "type" in value:
        return _object(value, known)
    if name in ("dtype", "output_dtype"):
        return DTYPES[value]
    if name == "layout":
        return LAYOUTS[value]
    if name == "memory_config":
        return memory(value)
    if name == "program_config":
        rest = {k: v for k, v in value.items() if k != "compute_with_storage_grid_size"}
        return ttnn.SDPAProgramConfig(compute_with_storage_grid_size=(8, 8), **rest)
    if name in ("activations", "input_tensor_a_activations", "input_tensor_b_activations"):
        return [ttnn.UnaryOpType[v] if isinstance(v, str) else argument("", v, known) for v in value]
    return value


def _function(op):
    found = ttnn
    for part in op.split(".")[1:]:
        found = getattr(found, part)
    return found


def _program(steps, known):
    results = []
    for step in steps:
        args = [argument("", v, known) for v in step["args"]]
        named = {k: argument(k, v, known) for k, v in step["kwargs"].items()}
        results.append(_function(step["op"])(*args, **named, **_config(step.get("config"))))
        known = known | {f"step {len(results) - 1}": results[-1]}
    return results


def _cache_update(entry, values, device):
    """A token of every user on a core of its own, its heads padded to a tile."""
    cache, token = upload(values[0], entry["inputs"][0], device), values[1]
    users, heads, width = token.shape[1:]
    shards = ttnn.create_sharded_memory_config(
        (32, width), ttnn.CoreGrid(y=1, x=users), ttnn.ShardStrategy.HEIGHT, use_height_and_width_as_shard_shape=True
    )
    token = torch.nn.functional.pad(token, (0, 0, 0, 32 - heads))
    token = ttnn.from_torch(token, dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device, memory_config=shards)
    named = dict(entry["kwargs"])
    if "update_idxs_tensor" in named:
        places = torch.tensor(named["update_idxs_tensor"], dtype=torch.int32)
        named["update_idxs_tensor"] = ttnn.from_torch(places, dtype=ttnn.int32, device=device)
    ttnn.experimental.paged_update_cache(cache, token, **named)
    return cache


def call(entry, values, device):
    """The results of a recorded call on these host values, as torch tensors."""
    op = entry["op"]
    if op == "ttnn.experimental.paged_update_cache":
        return [ttnn.to_torch(_cache_update(entry, values, device))]
    inputs = [upload(v, i, device) for v, i in zip(values, entry["inputs"], strict=True)]
    known = {f"input {i}": t for i, t in enumerate(inputs)}
    if op == "program":
        result = _program(entry["kwargs"]["steps"], known)
    elif op == "ttnn.from_torch+to_torch":
        result = inputs[0]
    elif op == "ttnn.mul(ttnn.silu(a), b)":
        result = ttnn.mul(ttnn.silu(inputs[0]), inputs[1])
    else:
        given = dict(entry["kwargs"])
        named = {k: argument(k, v, known) for k, v in given.items()}
        args = [t for name, t in known.items() if name not in given.values()]
        if op == "ttnn.concat":
            args = [args]
        moved = [named.pop("dims")] if op in ("ttnn.transpose", "ttnn.permute") else []
        args += [named.pop(name) for name in POSITIONAL if name in named] + named.pop("args", [])
        args += moved[0] if op == "ttnn.transpose" else moved
        result = _function(op)(*args, **named, **_config(entry["compute_kernel_config"]))
        if op == "ttnn.fill_cache":
            result = inputs[0]
        if entry.get("returns"):
            result = known[entry["returns"]]
    return [ttnn.to_torch(t) for t in (result if isinstance(result, (list, tuple)) else [result])]
