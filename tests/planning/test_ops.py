"""The predicted ops as tt-perf-report's CSV: its columns, and that its rows add up to the prediction."""

import argparse
import csv

import pytest
import ttnn

from bringup import backends
from bringup.backends import systems
from bringup.errors import BadInput
from bringup.planning import command, ops, roofline
from bringup.planning.spec_run import find_model_file, spec_run
from tests.planning.common import true_config
from ttnn_emulator.op import record, spec_only

LLAMA = "meta-llama/Llama-3.2-1B"
#: What tt-perf-report 1.4.1 reads by name without asking whether it is there (perf_report.py).
WANTED = {
    "OP CODE", "OP TYPE", "GLOBAL CALL COUNT", "DEVICE ID", "ATTRIBUTES", "MATH FIDELITY", "CORE COUNT",
    "OP TO OP LATENCY [ns]", "DEVICE KERNEL DURATION [ns]",
    *(f"{tensor}_{column}" for tensor in ("INPUT_0", "INPUT_1", "OUTPUT_0")
      for column in ("DATATYPE", "MEMORY", *(f"{d}_PAD[LOGICAL]" for d in "WZYX"))),
}  # fmt: skip


def small():
    config = true_config(LLAMA).__class__.from_dict(true_config(LLAMA).to_dict())
    config.num_hidden_layers = 1
    return config


@pytest.fixture(scope="module")
def ran():
    return spec_run(find_model_file(LLAMA, "n300"), small(), "n300", max_seq_len=256, prompt=64)


def nanoseconds(rows, phase):
    of = ("DEVICE KERNEL DURATION [ns]", "OP TO OP LATENCY [ns]", "HOST DURATION [ns]")
    return sum(float(row.get(column) or 0) for row in rows if row.get("PHASE") == phase for column in of)


def test_the_rows_add_up_to_the_prediction(ran):
    rows = ops.rows({"prefill": (ran.prefill, False), "decode": (ran.decode, True)}, "n300", context=96)
    predicted = roofline.predict(ran.prefill, ran.decode, "n300", traced=True, context=96)
    assert nanoseconds(rows, "prefill") == pytest.approx(1e9 * predicted.ttft_seconds, rel=1e-3)
    assert nanoseconds(rows, "decode") == pytest.approx(1e9 / predicted.tokens_per_second_per_user, rel=1e-3)
    assert [r["OP CODE"] for r in rows if r["OP TYPE"] == "signpost"] == ["prefill", "decode"]


def test_the_file_has_what_the_tool_reads_and_says_what_it_is(ran):
    rows = list(csv.DictReader(ops.text(ops.rows({"decode": (ran.decode, True)}, "n300")).splitlines()))
    assert set(rows[0]) >= WANTED
    assert {row["LABEL"] for row in rows} == {"predicted"}
    assert len({row["GLOBAL CALL COUNT"] for row in rows}) == len(rows)
    for row in rows:
        assert row["OP TYPE"] in ("tt_dnn_device", "signpost", "python_fallback")
        if row["OP TYPE"] == "tt_dnn_device":
            assert 1 <= int(row["CORE COUNT"]) <= 64
            assert float(row["DEVICE KERNEL DURATION [ns]"]) > 0
            assert int(row["INPUT_0_X_PAD[LOGICAL]"].partition("[")[0]) > 0
    products = [row for row in rows if row["OP CODE"] == "MatmulDeviceOperation"]
    assert len(products) == 6  # of a layer: qkv, o, gate, up, down; and the head
    assert {row["INPUT_1_DATATYPE"] for row in products} == {"BFLOAT16"}
    assert {row["INPUT_1_X_PAD[LOGICAL]"] for row in products} >= {"64128[64128]", "4096[4096]"}  # a chip's half
    assert any(row["OP CODE"].startswith("(torch)") for row in rows), "the host's reading of the logits"


def test_a_product_with_sharded_weights_is_told_by_its_program():
    def sharded(width, place, grid):
        shard = ttnn.ShardSpec(grid, [width[0], width[1]], ttnn.ShardOrientation.ROW_MAJOR)
        return ttnn.MemoryConfig(ttnn.TensorMemoryLayout.WIDTH_SHARDED, place, shard)

    cores = ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(7, 1))})
    banks = ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(11, 0))})
    program = ttnn.MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig(
        in0_block_w=4, per_core_M=1, per_core_N=6, fused_activation=None
    )
    with spec_only(), backends.open_system("n150") as device:
        x = ttnn.zeros([1, 1, 32, 2048], dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device,
                       memory_config=sharded((32, 128), ttnn.BufferType.L1, cores))  # fmt: skip
        w = ttnn.zeros([1, 1, 2048, 3072], dtype=ttnn.bfloat8_b, layout=ttnn.TILE_LAYOUT, device=device,
                       memory_config=sharded((2048, 256), ttnn.BufferType.DRAM, banks))  # fmt: skip
        with record() as log:
            ttnn.linear(x, w, program_config=program, memory_config=ttnn.L1_WIDTH_SHARDED_MEMORY_CONFIG)
    (row,) = [r for r in ops.rows({"decode": (log, True)}, "n150") if r["OP TYPE"] == "tt_dnn_device"]
    assert "MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig(in0_block_w=4" in row["ATTRIBUTES"]
    assert row["CORE COUNT"] == systems.get("n150").chip.dram.count
    assert row["INPUT_1_MEMORY"] == "DEV_0_DRAM_WIDTH_SHARDED"


def test_a_model_file_alone_says_model_and_system(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = [str(find_model_file(LLAMA, "p150")), "--ops", str(tmp_path / "ops.csv"), "--context", "256"]
    command.run(parser.parse_args(words))
    assert f"{LLAMA} on p150" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "ops.csv").read_text().splitlines()))
    assert {row["DEVICE ARCH"] for row in rows if row["DEVICE ID"]} == {systems.get("p150").chip.name}
    with pytest.raises(BadInput, match="one system"):
        command.run(parser.parse_args([LLAMA, "--ops", str(tmp_path / "ops.csv")]))
