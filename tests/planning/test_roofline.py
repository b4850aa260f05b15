"""Predicted times of hand-made op logs against arithmetic by hand, and what must hold of any prediction."""

from dataclasses import replace

import pytest
import torch
import ttnn

from bringup import backends
from bringup.backends import systems
from bringup.blocks.precision import compute_config
from bringup.planning import roofline
from bringup.planning.calibration import START
from bringup.planning.roofline import op_times, predict
from bringup.planning.spec_run import find_model_file, spec_run
from tests.planning.common import true_config
from ttnn_emulator.op import record, spec_only

LLAMA = "meta-llama/Llama-3.2-1B"
RATES = replace(
    START, multiply=1.0, unpack_bytes_per_cycle=1e9, read_fraction=0.5, write_fraction=0.5, grid_fraction=0.95,
    step_seconds=0, tile_seconds=1e-6, call_seconds=3e-5, read_bytes_per_second=1e9, mesh_read_bytes_per_second=1e8,
)  # fmt: skip


def zeros(device, *shape, dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT):
    return ttnn.zeros(shape, dtype=dtype, layout=layout, device=device)


def log(system, call):
    """Records of `call(device)` by shapes alone, on tensors that it makes itself."""
    with spec_only(), backends.open_system(system) as device, record() as records:
        call(device)
    return [r for r in records if r.op != "ttnn.zeros"]


def linear(rows, fidelity="HiFi4", dtype=ttnn.bfloat16):
    def call(device):
        x, w = zeros(device, 1, 1, rows, 4096), zeros(device, 1, 1, 4096, 8192, dtype=dtype)
        ttnn.linear(x, w, compute_kernel_config=compute_config(fidelity))

    return log("n150", call)


def test_a_decode_product_waits_for_its_weights():
    (time,) = op_times(linear(32), "n150", traced=True, rates=RATES)
    n_bytes = 2 * (32 * 4096 + 4096 * 8192 + 32 * 8192)
    assert time.bytes == n_bytes
    assert time.flops == 2 * 32 * 4096 * 8192
    assert time.seconds == pytest.approx(n_bytes / (0.5 * 288e9) + RATES.gap_seconds + RATES.product_start)
    assert (time.bound, list(time.split), time.calls, time.programs) == ("dram", ["weights"], 1, 1)


def test_a_prompt_waits_for_the_matrix_unit_four_times_as_long_in_hifi4():
    products = 8 * 32 * 128  # tiles of a core's part of the result, and of K
    written = 2 * 2048 * 8192 / (0.5 * 288e9)
    for fidelity, phases in (("LoFi", 1), ("HiFi2", 2), ("HiFi4", 4)):
        (time,) = op_times(linear(2048, fidelity), "n150", traced=True, rates=RATES)
        start = RATES.gap_seconds + RATES.grid_start
        assert time.seconds == pytest.approx(products * 16 * phases / 1e9 + written + start)
        assert time.bound == ("dram" if fidelity == "LoFi" else "compute")


def test_tiles_of_block_formats_are_sooner_in_the_matrix_unit():
    slow = replace(RATES, unpack_bytes_per_cycle=64)
    wide, narrow = (
        op_times(linear(2048, "LoFi", dtype), "n150", rates=slow)[0].seconds
        for dtype in (ttnn.bfloat16, ttnn.bfloat4_b)
    )
    assert wide > 1.3 * narrow


def test_weights_sharded_over_the_banks_are_read_faster_and_multiplied_by_a_core_each():
    def call(device):
        x = ttnn.to_memory_config(
            zeros(device, 1, 1, 32, 4096),
            ttnn.create_sharded_memory_config((1, 1, 32, 4096), ttnn.CoreGrid(y=4, x=8), ttnn.ShardStrategy.WIDTH),
        )
        banks = ttnn.CoreRangeSet([ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(11, 0))])
        shard = ttnn.ShardSpec(banks, (4096, 704), ttnn.ShardOrientation.ROW_MAJOR)
        memory = ttnn.MemoryConfig(ttnn.TensorMemoryLayout.WIDTH_SHARDED, ttnn.BufferType.DRAM, shard)
        w = ttnn.zeros(
            (1, 1, 4096, 8192), dtype=ttnn.bfloat8_b, layout=ttnn.TILE_LAYOUT, device=device, memory_config=memory
        )
        config = ttnn.MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig(
            in0_block_w=4, per_core_M=1, per_core_N=8, fused_activation=None
        )
        ttnn.linear(x, w, program_config=config, memory_config=ttnn.L1_WIDTH_SHARDED_MEMORY_CONFIG)

    times = [t for t in op_times(log("n150", call), "n150", traced=True, rates=RATES) if t.op == "ttnn.linear"]
    (sharded,), (plain,) = times, op_times(linear(32, "HiFi2", ttnn.bfloat8_b), "n150", traced=True, rates=RATES)
    assert sharded.seconds < plain.seconds
    slow = replace(RATES, unpack_bytes_per_cycle=32)
    (waiting,) = [t for t in op_times(log("n150", call), "n150", traced=True, rates=slow) if t.op == "ttnn.linear"]
    assert waiting.bound == "compute"


def test_a_norm_has_a_core_for_a_row_of_tiles_unless_it_is_sharded():
    def norm(sharded):
        def call(device):
            x = zeros(device, 1, 1, 32, 4096)
            if sharded:
                grid = ttnn.CoreGrid(y=4, x=8)
                x = ttnn.to_memory_config(
                    x, ttnn.create_sharded_memory_config((1, 1, 32, 4096), grid, ttnn.ShardStrategy.WIDTH)
                )
            ttnn.rms_norm(x)

        times = op_times(log("n150", call), "n150", traced=True, rates=RATES)
        return next(t for t in times if t.op == "ttnn.rms_norm")

    start = RATES.gap_seconds + RATES.row_start
    assert norm(False).seconds == pytest.approx(128 * RATES.row_seconds + start)
    assert norm(True).seconds == pytest.approx(4 * RATES.row_seconds + start)


def test_without_a_trace_a_phase_takes_the_longer_of_host_and_chip():
    records = linear(32) * 3
    chip = op_times(records, "n150", traced=True, rates=RATES)
    busy = op_times(records, "n150", rates=RATES)
    assert [t.seconds for t in busy] == [t.seconds for t in chip]
    slow = op_times(records, "n150", rates=replace(RATES, call_seconds=1e-2))
    assert sum(t.seconds for t in slow) == pytest.approx(3e-2)
    assert {t.bound for t in slow} == {"dispatch"}


@pytest.mark.parametrize(("system", "axes"), [("n300", [2]), ("t3000", [2, 4])])
def test_a_sum_over_chips(system, axes):
    (time,) = op_times(
        log(system, lambda d: ttnn.all_reduce(zeros(d, 1, 1, 32, 4096))), system, traced=True, rates=RATES
    )
    steps = 2 * sum(n - 1 for n in axes)
    assert time.seconds >= steps * RATES.hop_seconds
    assert (time.bound, list(time.split)) == ("ccl", ["ccl"])


def test_an_embedding_reads_the_rows_that_it_looks_up():
    def call(device):
        ids = zeros(device, 1, 32, dtype=ttnn.uint32, layout=ttnn.ROW_MAJOR_LAYOUT)
        table = zeros(device, 128256, 2048, layout=ttnn.ROW_MAJOR_LAYOUT)
        ttnn.embedding(ids, table, layout=ttnn.TILE_LAYOUT)

    (time,) = op_times(log("n150", call), "n150", rates=RATES)
    assert time.bytes == 32 * 4 + 2 * (32 * 2048 * 2)


def test_attention_in_decode_reads_what_its_users_have():
    def call(device):
        q, cache = zeros(device, 1, 32, 32, 64), [zeros(device, 32, 8, 1024, 64) for _ in "kv"]
        at = zeros(device, 32, dtype=ttnn.int32, layout=ttnn.ROW_MAJOR_LAYOUT)
        ttnn.transformer.scaled_dot_product_attention_decode(q, *cache, cur_pos_tensor=at)

    records = log("n150", call)
    position = 2 * 8 * 64 * 2  # keys and values of 8 heads
    own = 2 * 32 * 32 * 64 * 2 + 32 * 4  # queries, results, positions
    for users, context in ((1, 32), (1, 200), (8, 512), (32, 1024)):
        (time,) = op_times(records, "n150", users=users, context=context, rates=RATES)
        assert time.bytes == own + users * -(-context // 32) * 32 * position
        assert list(time.split) == ["kv"]


def test_reading_logits_to_the_host():
    def call(device):
        ttnn.to_torch(ttnn.get_device_tensors(zeros(device, 1, 1, 32, 4096))[0])

    (time,) = [t for t in op_times(log("n150", call), "n150", rates=RATES) if t.bound == "host"]
    assert time.seconds == pytest.approx(2 * 32 * 4096 / 1e9)


@pytest.fixture(scope="module")
def runs():
    """Llama's op logs on one chip and on two."""
    config = true_config(LLAMA)
    return {s: spec_run(find_model_file(LLAMA, s), config, s, max_seq_len=256, prompt=128) for s in ("n150", "n300")}


def speed(run, system, **how):
    return predict(run.prefill, run.decode, system, **{"rates": RATES, **how})


def test_the_split_is_the_step(runs):
    for system, run in runs.items():
        p = speed(run, system)
        assert sum(p.split.values()) == pytest.approx(1 / p.tokens_per_second_per_user)
        assert set(p.split) == set(roofline.KINDS)
        assert (p.split["ccl"] > 0) == (system == "n300")
        assert p.tokens_per_second_per_user < p.weights_bound_tps
        assert p.as_dict()["label"] == "predicted"


def test_the_bound_by_weights_is_their_bytes_over_the_bandwidth(runs):
    layer = 2048 * (2048 + 2 * 512) + 2048 * 2048 + 3 * 2048 * 8192
    n_bytes = 2 * (16 * layer + 2048 * 128256)
    assert speed(runs["n150"], "n150").weights_bound_tps == pytest.approx(288e9 / n_bytes)


def test_more_of_anything_is_never_slower(runs):
    for name, run in runs.items():
        system = systems.get(name)
        base = speed(run, system)
        faster = replace(system, chip=replace(system.chip, dram_bytes_per_second=2 * 288e9))
        better = [speed(run, faster), speed(run, system, traced=True), speed(run, system, read_logits=False)]
        better += [speed(run, system, rates=replace(RATES, **{f: getattr(RATES, f) * 2})) for f in
                   ("read_fraction", "unpack_bytes_per_cycle", "mesh_read_bytes_per_second")]  # fmt: skip
        better += [speed(run, system, rates=replace(RATES, **{f: getattr(RATES, f) / 2})) for f in
                   ("call_seconds", "row_seconds", "hop_seconds", "product_start")]  # fmt: skip
        for p in better:
            assert p.tokens_per_second_per_user >= base.tokens_per_second_per_user
            assert p.ttft_seconds <= base.ttft_seconds
        assert better[0].tokens_per_second_per_user > base.tokens_per_second_per_user
        more = speed(run, system, users=32, context=256)
        assert more.tokens_per_second_per_user < base.tokens_per_second_per_user


def test_ops_summed_are_the_whole(runs):
    times = op_times(runs["n150"].decode, "n150", rates=RATES)
    summed = roofline.by_op(times)
    assert sum(t.seconds for t in summed) == pytest.approx(sum(t.seconds for t in times))
    assert sum(t.calls for t in summed) == len(times)
    assert summed[0].op == "ttnn.linear"
    assert [t.seconds for t in summed] == sorted((t.seconds for t in summed), reverse=True)


def test_a_replay_is_split_as_its_calls_are():
    def call(device):
        def step():
            y = ttnn.linear(x, w)
            return ttnn.add(y, y)

        x, w = zeros(device, 1, 1, 32, 4096), zeros(device, 4096, 4096)
        step()
        trace = ttnn.begin_trace_capture(device, cq_id=0)
        step()
        ttnn.end_trace_capture(device, trace, cq_id=0)
        ttnn.execute_trace(device, trace, cq_id=0)

    times = op_times(log("n150", call), "n150", traced=True, rates=RATES)
    replay, calls = times[-1], times[:2]
    assert replay.op == "ttnn.execute_trace"
    assert set(replay.split) == {"weights", "other"}
    alone = roofline.split(calls)
    assert roofline.split([replay]) == pytest.approx(alone)
    assert alone["weights"] > 0
    assert alone["other"] > 0


def test_records_need_not_come_from_a_model():
    def call(device):
        ttnn.add(zeros(device, 1, 1, 32, 64), 1.0)
        ttnn.from_torch(torch.zeros(2, 2))

    (time,) = op_times(log("n150", call), "n150", rates=RATES)
    assert (time.op, time.bound, list(time.split)) == ("ttnn.add", "dispatch", ["other"])
