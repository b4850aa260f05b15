"""The emulator's op log as a memory report that `ttnn-visualizer` opens.

    with ttnn_emulator.op.record(buffers=True) as records:
        ...
    visualizer.write(records, "reports/visualizer", "n150")  # then: ttnn-visualizer --profiler-path reports/visualizer

The tables are those that ttnn 0.81.1 writes (`visualizer.sql`). Addresses, sizes and lifetimes are the emulator's,
which are the library's. As in a report of the library, a mesh is one device, since its chips allocate alike. Left out:
what programs take of L1 while they run, and graphs inside an op. Durations are predictions where given, else 0.
"""

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path

from bringup.backends import systems
from bringup.errors import BadInput, shown
from bringup.files import write_json, written_whole

SCHEMA_VERSION = "3.5"
LAYOUTS = {"INTERLEAVED": 0, "HEIGHT_SHARDED": 2, "WIDTH_SHARDED": 3, "BLOCK_SHARDED": 4}  # ttnn 0.81.1, buffers
DEVICE = RANK = 0


def write(records, folder, system, seconds=None):
    """Writes `db.sqlite` and `config.json` into `folder`, and returns it.

    records     of `ttnn_emulator.op.record(buffers=True)`; or {phase: records}, which then follow one another
    seconds     a predicted duration for each record, or None
    Raises      BadInput where the records say nothing of memory
    """
    if isinstance(records, dict):
        phases = [phase for phase, each in records.items() for _ in each]
        records = [r for each in records.values() for r in each]
    else:
        phases = [None] * len(records)
    if not any(r.held for r in records):
        raise BadInput(
            "the op log says nothing of memory", want="ttnn_emulator.op.record(buffers=True) around the calls"
        )
    if seconds is not None and len(seconds) != len(records):
        raise BadInput("a duration for each call", got=f"{len(seconds)}", want=f"{len(records)}")
    folder = Path(folder)
    with written_whole(folder / "db.sqlite") as path, closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript((Path(__file__).parent / "visualizer.sql").read_text())
        for table, rows in _tables(records, phases, seconds, systems.get(system)).items():
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    config = {"report_name": folder.name, "enable_detailed_buffer_report": True}
    write_json(folder / "config.json", config, indent=2)
    return folder


def predicted(records, system):
    """Seconds of each call by the roofline of `bringup.planning`, decode steps as traced; for `write`."""
    from bringup.planning import roofline

    return [
        sum(t.seconds for t in roofline.op_times([record], systems.get(system), traced=phase == "decode"))
        for phase, each in records.items()
        for record in each
    ]


def _tables(records, phases, seconds, system):
    """{table: rows}."""
    tables = {"devices": [_device(system)], "report_metadata": _metadata(system, seconds)}
    operations, arguments, tensors, buffers, chunks = [], [], {}, [], []
    inputs, outputs, traces, graphs, nodes, sources = [], [], [], [], [], {}
    blocks = ()
    for number, record in enumerate(records, 1):
        held = record.held
        operations.append((number, record.op, seconds[number - 1] if seconds else 0.0, RANK))
        if phases[number - 1] is not None:
            arguments.append((number, "phase", str(phases[number - 1]), RANK))
        if held is not None:
            blocks = held.blocks
            arguments += [(number, name, text, RANK) for name, text in held.arguments]
            inputs += _places(number, held.inputs)
            outputs += _places(number, held.outputs)
            tensors.update({h.number: h for h in (*held.inputs, *held.outputs)})
        for block in blocks:
            buffers.append(_buffer(number, block))
            chunks += _chunks(number, block, system.chip)
        file, line = _split(record.line)
        if file:
            sources.setdefault(file, len(sources) + 1)
            traces.append((number, f'  File "{shown(file)}", line {line}, in ?', sources[file], RANK))
        graphs.append((number, json.dumps(_graph(record)), RANK))
        nodes.append((number, number, number, record.op, RANK))
    tables |= {"operations": operations, "operation_arguments": arguments, "buffers": buffers, "buffer_chunks": chunks}
    tables |= {"input_tensors": inputs, "output_tensors": outputs, "captured_graph": graphs, "nodes": nodes}
    tables["tensor_consumers"] = [(tensor, op, index, RANK) for op, index, tensor, _ in inputs]
    tables["tensor_producers"] = [(tensor, op, index, RANK) for op, index, tensor, _ in outputs]
    tables["tensors"] = [_tensor(h) for h in tensors.values()]
    tables["device_tensors"] = [(h.number, DEVICE, h.address, RANK) for h in tensors.values() if h.address is not None]
    tables["tensor_lifetime"] = _lifetimes(records, tensors, inputs, outputs)
    tables["source_files"] = [(number, shown(file), _contents(file)) for file, number in sources.items()]
    tables["stack_traces"] = traces
    return tables


def _places(operation, handles):
    """One row for each tensor of a call; a tensor that is given twice has one, as in the library's reports."""
    unique = dict.fromkeys(h.number for h in handles)
    return [(operation, index, number, RANK) for index, number in enumerate(unique)]


# ---------------------------------------------------------------- devices, tensors, memory
def _device(system):
    """The row that ttnn 0.81.1 writes for the mesh of a system."""
    chip = system.chip
    columns, rows = (n + more for n, more in zip(chip.grid, system.dispatching, strict=True))
    return (
        DEVICE, rows, columns, chip.grid[1], chip.grid[0], chip.l1_end, chip.l1.count, chip.l1.bytes,
        0, chip.l1.base, 1, chip.cores, 0, chip.l1_end * chip.cores, 0, chip.l1_bytes, chip.l1_bytes,
        chip.l1.bytes, RANK,
    )  # fmt: skip


def _metadata(system, seconds):
    from bringup import __version__

    rows = {
        "schema_version": SCHEMA_VERSION,
        "version": "0.81.1 (emulated)",
        "source": f"ttnn-bringup {__version__}: ttnn_emulator, no board",
        "system": str(system),
        "duration": "predicted, not measured" if seconds else "not known: 0 in every operation",
        "rank": "0",
        "world_size": "1",
    }
    return list(rows.items())


def _config_text(config):
    """A memory config in the library's own words, which the reader takes apart."""
    shards = config.shard_spec
    text = "std::nullopt"
    if shards is not None:
        grid = ",".join(
            f'{{"start":{{"x":{r.start.x},"y":{r.start.y}}},"end":{{"x":{r.end.x},"y":{r.end.y}}}}}'
            for r in shards.grid.ranges()
        )
        orientation = f"ShardOrientation::{shards.orientation.name}"
        text = f"ShardSpec{{grid=[{grid}], shape={list(shards.shape)}, orientation={orientation}}}"
    return (
        f"MemoryConfig(memory_layout=TensorMemoryLayout::{config.memory_layout.name},"
        f"buffer_type=BufferType::{config.buffer_type.name},shard_spec={text},nd_shard_spec=std::nullopt,"
        "created_with_nd_shard_spec=0,per_core_allocation=0,range_lockstep_allocation=0)"
    )


def _tensor(handle):
    spec, on_device = handle.spec, handle.address is not None
    shape, config = f"Shape({list(spec.shape)})", spec.memory_config
    kind = config.buffer_type.value if on_device else None
    return (
        handle.number, shape, f"DataType.{spec.dtype.name}", f"Layout.{spec.layout.name}",
        _config_text(config) if config is not None and on_device else None, DEVICE if on_device else None,
        handle.address, kind, RANK, "DEVICE" if on_device else "HOST",
    )  # fmt: skip


def _buffer(operation, block):
    layout = "INTERLEAVED" if block.spec is None else block.spec.memory_config.memory_layout.name
    kind = block.buffer_type.value
    return (operation, DEVICE, block.address, block.bank_bytes, kind, LAYOUTS[layout], RANK)


def _chunks(operation, block, chip):
    """A row for each bank that has pages of a tensor in L1; the library lists none in DRAM."""
    if block.spec is None or block.buffer_type.name != "L1":
        return []
    kind, address, page = block.buffer_type.value, block.address, block.page_bytes
    return [
        (operation, DEVICE, address, bank, *chip.core_of_bank[bank], address, n * page, page, n, kind, RANK)
        for bank, n in sorted(_pages_by_bank(block, chip).items())
    ]


def _pages_by_bank(block, chip):
    """{bank: pages}: interleaved pages go round the banks, bank 1 first (ttnn 0.81.1, get_buffer_pages); a shard is on
    its core, the first shard on the first one."""
    shards = block.spec.memory_config.shard_spec
    if shards is None:
        banks = chip.l1.count
        return {(i + 1) % banks: (block.pages - i + banks - 1) // banks for i in range(min(block.pages, banks))}
    *leading, columns = block.spec.padded_shape
    needed = -(-math.prod(leading) // shards.shape[0]) * -(-columns // shards.shape[1])
    cores = list(shards.grid.cores())[:needed]
    return {chip.bank_of_core[core]: block.pages for core in cores}


# ---------------------------------------------------------------- what used what
def _lifetimes(records, tensors, inputs, outputs):
    made, used, freed = {}, {}, {}
    for operation, _, tensor, _ in outputs:
        made.setdefault(tensor, operation)
    for operation, _, tensor, _ in inputs:
        if records[operation - 1].op == "ttnn.deallocate":
            freed.setdefault(tensor, operation)
        else:
            used[tensor] = operation

    def line(operation):
        file, number = _split(records[operation - 1].line) if operation else (None, None)
        return shown(file) if file else None, number

    return [(t, made.get(t), used.get(t), freed.get(t), *line(made.get(t)), *line(used.get(t)), RANK) for t in tensors]


def _graph(record):
    """The call and the programs that it launched, one inside the other, in the library's form of a captured graph."""
    nodes = []

    def node(kind, level, **params):
        nodes.append({"node_type": kind, "params": params, "stacking_level": level})

    node("capture_start", 0)
    node("function_start", 1, name=record.op, inputs="0")
    for launch in record.launches:
        node("function_start", 2, name=launch.op, inputs=str(len(launch.inputs)))
        node("function_end", 2, name=launch.op)
    node("function_end", 1, name=record.op)
    node("capture_end", 0)
    for i, each in enumerate(nodes):
        each |= {"id": i, "counter": i, "arguments": [], "input_tensors": []}
        each["connections"] = [i + 1] if i + 1 < len(nodes) else []
    return nodes


def _split(line):
    """(file, number) of `file:number`, or (None, None)."""
    file, _, number = (line or "").rpartition(":")
    return (file, int(number)) if file and number.isdigit() else (None, None)


def _contents(file):
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
