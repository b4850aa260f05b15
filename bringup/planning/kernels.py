"""What one program asks of one chip, and how long that takes there: from what its program config does.

A product fetches its operands from DRAM block by block of K, each block multicast, while the busiest core multiplies
tiles: it takes the longest of the three, and then writes its result. Norms and element-wise ops take time by the tile
of the busiest core: a row of tiles is one core's, unless the tensor is sharded. Attention reads the keys that there
are, and takes its scores through exp. Every program has a start of its own. `Rates` has what no data sheet says.
"""

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

# How often a product goes through the matrix unit. Tenstorrent, tt-metal tech_reports/matrix_engine/matrix_engine.md.
PHASES = {"LoFi": 1, "HiFi2": 2, "HiFi3": 3, "HiFi4": 4}
TILE = 32
CONSTANTS = Path(__file__).with_name("constants.json")

PRODUCTS = ("ttnn.linear", "ttnn.matmul", "ttnn.experimental.minimal_matmul", "ttnn.experimental.minimal_matmul_split")
ROWS = ("norm", "softmax", "topk", "argmax", "sampling", "sum", "mean", "max", "moe")
MOVES = ("reshape", "permute", "tilize", "untilize", "tilize_with_val_padding", "untilize_with_unpadding", "embedding")
OF_PRODUCTS = ("product", "grid", "sharded")
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_broadcast", "all_to_all")


@dataclass(frozen=True)
class Rates:
    """What programs reach on a kind of chip, and no data sheet says; fractions are of the data sheet's rates."""

    multiply: float  # cycles of a tile product over those of the matrix unit alone
    unpack_bytes_per_cycle: float  # of both tiles of a product, into the matrix unit
    read_fraction: float  # of DRAM's rate that interleaved operands reach
    grid_fraction: float  # that of a product whose blocks go along rows and columns of cores, which few cores read
    sharded_fraction: float  # that of weights sharded over the banks
    write_fraction: float  # that of an interleaved result
    step_seconds: float  # a block of K that is multicast takes at least so long
    tile_seconds: float  # a tile that a core reads, computes on and writes
    row_seconds: float  # a tile of a norm or a reduction along a row
    score_seconds: float  # a tile of attention's scores through exp
    product_start: float  # seconds that starting a program takes, by its form
    grid_start: float
    sharded_start: float
    row_start: float
    tile_start: float
    move_start: float
    attention_start: float
    collective_start: float
    async_start: float
    hop_seconds: float  # a step of a collective to the next chip
    async_hop_seconds: float  # that of one with buffers and semaphores of its own
    link_fraction: float  # of the links' rate
    gap_seconds: float  # between two programs of a trace
    call_seconds: float  # a call of the host that no trace replays
    read_bytes_per_second: float  # logits of one chip, copied to the host
    mesh_read_bytes_per_second: float  # logits of several chips, copied to the host and joined there

    @classmethod
    def fitted(cls, chip):
        found = json.loads(CONSTANTS.read_text())["rates"][chip.name]
        return cls(**{f.name: found[f.name] for f in fields(cls)})


class Kernel(NamedTuple):
    """What a program asks of one chip: bytes, and the tiles and tile products of the busiest core.

    Numbers, or arrays of them for programs of one form.
    """

    op: str
    kind: str  # weights, kv, ccl or other
    form: str  # product, grid, sharded (products with their program), attention, row, tile, move, collective, async
    read: float = 0  # bytes out of DRAM
    written: float = 0  # bytes into it
    products: float = 0  # of two tiles
    tile_bytes: float = 0  # of the two
    phases: float = 0
    steps: float = 0  # that follow each other: blocks of K, or chips of a ring
    tiles: float = 0
    links: float = 0  # bytes over the busiest link
    flops: float = 0  # of all cores


def kernel(launch, system, users=1, context=128):
    """The `Kernel` of a program of the op log; attention is over so many users at that many positions."""
    form, name = form_of(launch), launch.op.rpartition(".")[2]
    kind = "weights" if form in OF_PRODUCTS else "ccl" if form in ("collective", "async") else "other"
    if "attention" in name or "cache" in name:
        kind = "kv"
    read, written = dram_bytes(launch, users, context)
    work = flops(launch, users, context)
    more = _MORE[form](launch, system, work)
    return Kernel(launch.op, kind, form, read, written, flops=work, **more)


def waits(k, system, rates):
    """Seconds of what a program waits for: dram, compute, ccl; `write` comes after them, `dispatch` before."""
    chip, memory = system.chip, system.chip.dram_bytes_per_second
    found = {"dispatch": rates.gap_seconds + getattr(rates, f"{k.form}_start")}
    if k.form in ("collective", "async"):
        links = k.links / (system.links * chip.link_bytes_per_second * rates.link_fraction)
        hop = rates.hop_seconds if k.form == "collective" else rates.async_hop_seconds
        return found | {"ccl": k.steps * hop + links}
    reached = {"sharded": rates.sharded_fraction, "grid": rates.grid_fraction}.get(k.form, rates.read_fraction)
    read, written = k.read / (memory * reached), k.written / (memory * rates.write_fraction)
    alone = 2 * TILE**3 / chip.flops_per_cycle  # cycles of a tile product in one phase
    cycles = _larger(rates.multiply * alone * k.phases, k.tile_bytes / rates.unpack_bytes_per_cycle)
    compute = k.products * cycles / chip.cycles_per_second
    if k.form in OF_PRODUCTS:
        return found | {"dram": _larger(read, k.steps * rates.step_seconds), "compute": compute, "write": written}
    each = {"row": rates.row_seconds, "attention": rates.score_seconds}.get(k.form, rates.tile_seconds)
    return found | {"dram": read + written, "compute": compute + k.tiles * each}


def seconds(k, system, rates):
    """Seconds of a program that a trace replays."""
    found = waits(k, system, rates)
    after = found.pop("dispatch") + found.pop("write", 0)
    longest = found.popitem()[1]
    for each in found.values():
        longest = _larger(longest, each)
    return after + longest


def _larger(a, b):
    """The larger one, of numbers or of arrays."""
    return (a + b + abs(a - b)) / 2


# What a program does -------------------------------------------------------------------------------------------------


def form_of(launch):
    name = launch.op.rpartition(".")[2]
    if launch.op in PRODUCTS:
        return {"dram": "sharded", "2d": "grid", "minimal": "grid"}.get(launch.attrs.get("program"), "product")
    if name.startswith(COLLECTIVES):
        return "async" if name.endswith("_async") else "collective"
    if "attention" in name:
        return "attention"
    return "row" if any(word in name for word in ROWS) else "move" if name in MOVES else "tile"


def _tiles(shape):
    """(rows of tiles, tiles across) of a padded shape, all batches under each other."""
    down = math.prod(shape[:-2]) * -(-shape[-2] // TILE) if len(shape) > 1 else 1
    return down, -(-shape[-1] // TILE)


def _product(launch, system, work):
    """By the program's blocks. Weights sharded over the banks are multiplied by one core beside each."""
    (a, b), cores = launch.inputs[:2], system.chip.cores
    (down, across), k = _tiles(launch.outputs[0].padded_shape), -(-a.padded_shape[-1] // TILE)
    per_m, per_n = launch.attrs.get("per_core", (down, -(-across // cores)))
    if launch.attrs.get("program") == "dram":
        per_n = -(-across // system.chip.dram.count)
    rounds = max(1, -(-(-(-down // per_m) * -(-across // per_n)) // cores))
    return {
        "products": per_m * per_n * k * rounds,
        "tile_bytes": sum(spec.bytes / math.prod(_tiles(spec.padded_shape)) for spec in (a, b)),
        "phases": _phases(launch),
        "steps": k / launch.attrs.get("in0_block_w", 1) * rounds,
    }


def _attention(launch, system, work):
    width, cores = launch.inputs[0].padded_shape[-1], system.chip.cores
    scores = work / (4 * width * TILE**2)
    return {"products": work / (2 * TILE**3) / cores, "phases": _phases(launch), "tiles": scores / cores}


def _row(launch, system, work):
    """Tiles of the busiest core; a row of them is one core's, unless they are sharded."""
    (rows, across), cores = _tiles(launch.inputs[0].padded_shape), _cores(launch.inputs[0])
    if "argmax" in launch.op and launch.inputs[0].layout.name == "ROW_MAJOR":  # cuts its rows over all cores
        cores = system.chip.cores  # tt-metal, argmax_multi_core_program_factory.cpp; no measured one is known
    return {"tiles": rows * across / cores if cores else -(-rows // system.chip.cores) * across}


def _tile(launch, system, work):
    """Tiles of what comes out; of a cache, the rows that go in."""
    made = [min(launch.inputs[:2], key=lambda spec: spec.bytes)] if "_cache" in launch.op else launch.outputs
    tiles = sum(math.prod(_tiles(spec.padded_shape)) for spec in made)
    cores = _cores(made[0]) if made else None
    return {"tiles": tiles / cores if cores else -(-tiles // system.chip.cores)}


def _collective(launch, system, work):
    """Along each axis of the mesh in turn; an all_reduce is a reduce_scatter and an all_gather (ttnn 0.81.1)."""
    axes = [n for n in system.mesh_shape if n > 1]
    rounds = 2 if "all_reduce" in launch.op else 1
    whole = max(spec.bytes for spec in (*launch.inputs, *launch.outputs))
    return {"steps": rounds * sum(n - 1 for n in axes), "links": sum(rounds * whole * (n - 1) / n for n in axes)}


_MORE = dict.fromkeys(OF_PRODUCTS, _product) | {"attention": _attention, "row": _row, "tile": _tile}
_MORE |= {"move": _tile, "collective": _collective, "async": _collective}


def _cores(spec):
    """How many cores hold a tensor that is sharded over L1; None of others."""
    memory = spec.memory_config
    shard = memory.shard_spec if memory is not None and memory.buffer_type.name == "L1" else None
    return None if shard is None else shard.num_cores()


def _phases(launch):
    given = launch.attrs.get("math_fidelity")
    return 0 if given is None else PHASES[str(getattr(given, "name", given)).rpartition(".")[2]]


def dram_bytes(launch, users, context):
    """(read, written) in DRAM on one chip; the log has whole operands, and a program may use few rows of one."""
    op, inputs, outputs = launch.op, launch.inputs, launch.outputs
    each, written = [_in_dram(spec) for spec in inputs], sum(_in_dram(spec) for spec in outputs)
    if op == "ttnn.embedding":
        each[1] = outputs[0].bytes
    elif "attention_decode" in op:
        share = min(1.0, users * _whole_tiles(context) / _positions(inputs[1]))
        each[1:3] = [share * n for n in each[1:3]]
    elif "chunked_scaled_dot_product" in op:  # a prompt's chunk attends to what the cache holds of the prompt so far
        _, heads, rows, width = inputs[0].shape
        share = min(1.0, launch.flops / (4 * heads * rows * width) / _positions(inputs[1]))
        each[1:3] = [share * n for n in each[1:3]]
    elif op == "ttnn.experimental.rotary_embedding" and len(inputs) > 2:
        rows, length = inputs[0].shape[-2], inputs[1].shape[-2]
        each[1:3] = [n * min(1.0, rows / length) for n in each[1:3]]
    elif "_cache" in op and len(inputs) > 1:  # the rows that go in; the cache is written in place
        each[0], written = 0, inputs[1].bytes
    elif op == "ttnn.slice":
        each[0] = min(each[0], outputs[0].bytes)
    return sum(each), written


def flops(launch, users, context):
    """Floating-point operations of a program, attention over the users and positions that there are."""
    if "attention_decode" not in launch.op:
        return launch.flops
    _, _, heads, width = launch.inputs[0].shape
    return 4 * users * heads * _whole_tiles(context) * width


def _in_dram(spec):
    memory = spec.memory_config
    return spec.bytes if memory is not None and memory.buffer_type.name == "DRAM" else 0


def _positions(cache):
    """Positions of all users in a cache [users or blocks, KV heads, positions, head_dim]."""
    return cache.shape[0] * cache.shape[2]


def _whole_tiles(context):
    return -(-context // TILE) * TILE
