"""The op log as a memory report: the library's tables, and the library's rows for calls that it recorded as well."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch

import ttnn_emulator as ttnn
from bringup import backends
from bringup.errors import BadInput
from bringup.report import visualizer
from ttnn_emulator import op

LIBRARY = json.loads((Path(__file__).parent / "files" / "ttnn_report.json").read_text())
#: Tables of the library's report that are left out: sub-devices, and where programs ran. The reader does not ask.
LEFT_OUT = {"sub_device_managers", "sub_devices", "operation_executions", "execution_sub_devices"}


def sequence(ttnn, device):
    """Calls with one result of each kind: interleaved, a view, sharded by height, width and block."""

    def zeros(*shape, **how):
        return ttnn.zeros(shape, layout=ttnn.TILE_LAYOUT, device=device, **how)

    def sharded(x, cores, strategy):
        return ttnn.to_memory_config(x, ttnn.create_sharded_memory_config(x.shape, cores, strategy))

    x, w = zeros(1, 1, 64, 64, dtype=ttnn.bfloat16), zeros(1, 1, 64, 96, dtype=ttnn.bfloat8_b)
    y = ttnn.linear(x, w, memory_config=ttnn.L1_MEMORY_CONFIG)
    z = ttnn.silu(y)
    ttnn.deallocate(y)
    view = ttnn.reshape(z, (1, 1, 2, 32, 96))
    wide = ttnn.to_memory_config(zeros(1, 1, 32, 130 * 32, dtype=ttnn.bfloat16), ttnn.L1_MEMORY_CONFIG)
    by_height = sharded(zeros(1, 1, 2048, 64, dtype=ttnn.bfloat16), ttnn.CoreGrid(x=8, y=8), ttnn.ShardStrategy.HEIGHT)
    by_width = sharded(zeros(1, 1, 32, 128, dtype=ttnn.bfloat16), ttnn.CoreGrid(x=4, y=1), ttnn.ShardStrategy.WIDTH)
    by_block = sharded(zeros(1, 1, 128, 128, dtype=ttnn.bfloat16), ttnn.CoreGrid(x=2, y=2), ttnn.ShardStrategy.BLOCK)
    return [view, wide, by_height, by_width, by_block]


@pytest.fixture
def log(device):
    with op.record(buffers=True) as records:
        kept = sequence(ttnn, device)
    yield records
    del kept


@pytest.fixture
def ask(log, tmp_path):
    """SELECTs in the report of the log."""
    folder = visualizer.write(log, tmp_path / "report", "n150")
    with closing(sqlite3.connect(folder / "db.sqlite")) as connection:
        yield lambda sql: [list(row) for row in connection.execute(sql)]


def test_tables_and_columns_are_the_librarys(ask):
    tables = [name for (name,) in ask("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = {table: [row[1] for row in ask(f"PRAGMA table_info({table})")] for table in tables}
    assert columns == {table: names for table, names in LIBRARY["columns"].items() if table not in LEFT_OUT}
    assert ask("SELECT value FROM report_metadata WHERE key = 'schema_version'") == [["3.5"]]


def test_the_same_calls_leave_the_same_report_as_in_the_library(ask):
    assert ask("SELECT * FROM devices") == [LIBRARY["device"]]
    assert [name for (name,) in ask("SELECT name FROM operations ORDER BY operation_id")] == LIBRARY["operations"]
    columns = "operation_id, address, max_size_per_bank, buffer_type, buffer_layout"
    assert ask(f"SELECT {columns} FROM buffers ORDER BY 1, 4, 2") == LIBRARY["buffers"]
    columns = "address, core_x, core_y, chunk_address, chunk_size, page_size, num_pages"
    last = len(LIBRARY["operations"])
    chunks = ask(f"SELECT {columns} FROM buffer_chunks WHERE operation_id = {last} ORDER BY 1, 2, 3")
    assert chunks == LIBRARY["chunks"]


@pytest.mark.parametrize(
    ("system", "cores", "first"),  # ttnn 0.81.1 on mock clusters: get_device_info; get_buffer_pages of the first pages
    [("p150", (10, 12, 10, 11), [(1, 0, 3), (2, 8, 7), (3, 1, 6)]), ("p300", (10, 12, 10, 11), [(1, 0, 3), (2, 8, 7)])],
)
def test_a_report_of_blackhole(tmp_path, system, cores, first):
    backends.activate("emulator")
    with op.spec_only(), backends.open_system(system) as device, op.record(buffers=True) as records:
        kept = [ttnn.ones((1, 1, 32, 32 * len(first)), layout=ttnn.TILE_LAYOUT, dtype=ttnn.bfloat16, device=device,
                          memory_config=ttnn.L1_MEMORY_CONFIG)]  # fmt: skip
        kept += sequence(ttnn, device)
    folder = visualizer.write(records, tmp_path / "report", system)
    with closing(sqlite3.connect(folder / "db.sqlite")) as connection:
        device_row = connection.execute("SELECT * FROM devices").fetchone()
        chunks = connection.execute(
            "SELECT bank_id, core_x, core_y FROM buffer_chunks WHERE operation_id = 1 ORDER BY bank_id"
        ).fetchall()
    assert device_row[1:5] == cores
    assert chunks == first


def test_counts_are_those_of_the_op_log(log, ask):
    def count(table):
        return ask(f"SELECT COUNT(*) FROM {table}")[0][0]

    assert count("operations") == count("captured_graph") == count("nodes") == count("stack_traces") == len(log)
    assert count("buffers") == sum(len(r.held.blocks) for r in log)
    assert count("input_tensors") == count("tensor_consumers") == sum(len(r.held.inputs) for r in log)
    assert count("output_tensors") == count("tensor_producers") == sum(len(r.held.outputs) for r in log)
    numbers = {h.number for r in log for h in (*r.held.inputs, *r.held.outputs)}
    assert count("tensors") == count("tensor_lifetime") == len(numbers)
    launched = sum(len(r.launches) for r in log)
    graphs = [json.loads(text) for (text,) in ask("SELECT captured_graph FROM captured_graph")]
    assert sum(node["node_type"] == "function_start" for graph in graphs for node in graph) == len(log) + launched


def test_a_tensor_is_followed_from_call_to_call(ask):
    names = dict(ask("SELECT operation_id, name FROM operations"))
    lifetimes = ask("SELECT producer_operation_id, last_use_operation_id, deallocate_operation_id FROM tensor_lifetime")
    told = [[names.get(i) for i in row] for row in lifetimes]
    assert ["ttnn.linear", "ttnn.silu", "ttnn.deallocate"] in told
    assert ["ttnn.silu", "ttnn.reshape", None] in told
    # What follows from the tables alone: a tensor is made once and used after that.
    both = "tensor_producers p JOIN tensor_consumers c USING (tensor_id)"
    assert not ask(f"SELECT 1 FROM {both} WHERE c.operation_id <= p.operation_id")
    assert not ask("SELECT 1 FROM input_tensors WHERE tensor_id NOT IN (SELECT tensor_id FROM tensors)")


def test_each_call_says_where_it_was_made_and_with_what(ask):
    trace, contents = ask(
        "SELECT stack_trace, contents FROM stack_traces JOIN source_files ON source_file_id = id WHERE operation_id = 3"
    )[0]
    line = int(trace.split("line ")[1].split(",")[0])
    assert "ttnn.linear(x, w" in contents.splitlines()[line - 1]
    assert ["shape", "(1, 1, 2, 32, 96)"] in ask("SELECT name, value FROM operation_arguments WHERE operation_id = 6")


def test_durations_are_predictions_or_nothing(log, tmp_path):
    def durations(folder):
        with closing(sqlite3.connect(folder / "db.sqlite")) as connection:
            told = connection.execute("SELECT value FROM report_metadata WHERE key = 'duration'").fetchone()[0]
            return told, [d for (d,) in connection.execute("SELECT duration FROM operations ORDER BY operation_id")]

    told, seconds = durations(visualizer.write(log, tmp_path / "a", "n150"))
    assert told.startswith("not known")
    assert set(seconds) == {0.0}
    predicted = [1e-6 * i for i in range(len(log))]
    told, seconds = durations(visualizer.write(log, tmp_path / "b", "n150", predicted))
    assert told.startswith("predicted")
    assert seconds == predicted
    with pytest.raises(BadInput, match="a duration for each call"):
        visualizer.write(log, tmp_path / "c", "n150", [1.0])


def test_phases_follow_one_another(device, tmp_path):
    log = {}
    for phase in ("prefill", "decode"):
        with op.record(buffers=True) as log[phase]:
            ttnn.zeros((32, 32), layout=ttnn.TILE_LAYOUT, device=device)
    with closing(sqlite3.connect(visualizer.write(log, tmp_path, "n150") / "db.sqlite")) as connection:
        rows = connection.execute("SELECT operation_id, value FROM operation_arguments WHERE name = 'phase'").fetchall()
    assert rows == [(1, "prefill"), (2, "decode")]


def test_a_log_without_memory_is_refused(device, tmp_path):
    with op.record() as records:
        ttnn.zeros((32, 32), layout=ttnn.TILE_LAYOUT, device=device)
    with pytest.raises(BadInput, match="record\\(buffers=True\\)"):
        visualizer.write(records, tmp_path, "n150")


@pytest.mark.parametrize("chips", [1, 2])
def test_blocks_in_use_are_what_the_allocators_count(chips):
    if chips > 1:
        ttnn.set_fabric_config(ttnn.FabricConfig.FABRIC_1D)
    ttnn.chips.use("n300")
    device = ttnn.open_mesh_device(ttnn.MeshShape(1, chips))
    mapper = ttnn.ReplicateTensorToMesh(device)
    where = dict(dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, mesh_mapper=mapper)
    weight = ttnn.from_torch(torch.randn(64, 64), device=device, **where)
    with op.record(buffers=True) as records:
        x = ttnn.from_torch(torch.randn(1, 1, 32, 64), device=device, **where)
        for _ in range(3):  # what a name lets go of is freed
            x = ttnn.rms_norm(ttnn.linear(x, weight, memory_config=ttnn.L1_MEMORY_CONFIG), memory_config=None)
        on_host = ttnn.from_torch(torch.randn(1, 1, 32, 64), **where)
        x = ttnn.add(x, ttnn.to_device(on_host, device))
        if chips > 1:
            x = ttnn.all_reduce(x)
    for record in records:
        if record.chips:
            sizes = dict.fromkeys(device.allocators, 0)
            for block in record.held.blocks:
                sizes[block.buffer_type] += block.bank_bytes * device.allocators[block.buffer_type].banks
            assert list(sizes.values()) == [record.dram_bytes, record.l1_bytes], record
    assert any(r.held.blocks for r in records if not r.chips), "a call on the host does not empty the device"
    del x, weight
    ttnn.close_mesh_device(device)
    ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)


def test_recording_holds_on_to_nothing(device):
    x = ttnn.zeros((32, 32), layout=ttnn.TILE_LAYOUT, device=device)
    with op.record(buffers=True) as records:
        y = ttnn.silu(x)
        before = device.memory()["dram"]["allocated"]
        del y
        assert device.memory()["dram"]["allocated"] < before
        ttnn.silu(x)
    assert len(records[-1].held.blocks) == 2
    assert records[0].held.outputs[0].number != records[1].held.outputs[0].number


def test_the_plain_log_notes_no_memory(device):
    with op.record() as records:
        ttnn.zeros((32, 32), layout=ttnn.TILE_LAYOUT, device=device)
    assert records[0].held is None
