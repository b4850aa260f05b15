"""Traces, command queues and events: every op replays to what it computes, and misuse is refused."""

import contextlib
import re

import pytest
import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, build, open_system, read
from tests.emulator.test_ops import CASES, function


@contextlib.contextmanager
def opened(**kwargs):
    device = ttnn.open_device(device_id=0, **kwargs)
    try:
        yield device
    finally:
        ttnn.close_device(device)


@pytest.fixture
def device():
    with opened(trace_region_size=1 << 20, num_command_queues=2) as d:
        yield d


def host(seed=0, shape=(1, 1, 32, 64)):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return ttnn.from_torch(values, dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT)


def step(x, w):
    """A few programs, an alias, and intermediates that are freed by the program and by their scope."""
    a = ttnn.linear(x, w)
    b = ttnn.silu(a)
    ttnn.deallocate(a)
    return ttnn.add(ttnn.reshape(ttnn.reshape(b, (1, 32, 1, 64)), (1, 1, 32, 64)), x)


def captured(device, run):
    run()
    trace = ttnn.begin_trace_capture(device, cq_id=0)
    result = run()
    ttnn.end_trace_capture(device, trace, cq_id=0)
    return trace, result


def allocated(device):
    """Bytes of tensors in each memory: all but what programs keep."""
    held = {kind.name.lower(): a.allocated for kind, a in device.allocators.items()}
    for buffers in device.kept.values():
        for buffer in buffers:
            held[buffer.buffer_type.name.lower()] -= buffer.bank_bytes
    return held


def test_a_replay_works_on_what_the_buffers_hold_now(device):
    x, w = ttnn.to_device(host(), device), ttnn.to_device(host(1, (64, 64)), device)
    level = allocated(device)
    trace, y = captured(device, lambda: step(x, w))
    with pytest.raises(ttnn.NotEmulated, match="has no contents"):
        ttnn.to_torch(y)
    for seed in range(2, 5):
        ttnn.copy_host_to_device_tensor(host(seed), x)
        ttnn.execute_trace(device, trace, cq_id=0, blocking=False)
        assert torch.equal(ttnn.to_torch(y), ttnn.to_torch(step(x, w)))
    del y
    assert allocated(device) == level, "a trace holds no memory of the tensors that its program dropped"
    ttnn.execute_trace(device, trace, cq_id=0)


def test_a_program_warms_up_on_what_a_trace_has_yet_to_write(device):
    """Sampling is captured apart from the model that feeds it: its first run takes the logits of no step."""
    x, taken = ttnn.to_device(host(), device), ttnn.to_device(host(7), device)
    first, y = captured(device, lambda: ttnn.silu(x))

    def sample():
        z = ttnn.add(y, y)
        return ttnn.exp(ttnn.reshape(z, (1, 32, 1, 64))), ttnn.abs(y, output_tensor=taken)

    second, (z, _) = captured(device, sample)
    for unknown in (y, z, taken):
        with pytest.raises(ttnn.NotEmulated, match="what lay in its memory before"):
            ttnn.to_torch(unknown)
    with pytest.raises(ttnn.NotEmulated, match="what lay in its memory before"):
        ttnn.fill_cache(x, y, 0)  # its other rows would no longer be what they were
    ttnn.execute_trace(device, second)  # on what the first has not written
    with pytest.raises(ttnn.NotEmulated, match="what lay in its memory before"):
        ttnn.to_torch(z)
    for seed in (3, 4):
        ttnn.copy_host_to_device_tensor(host(seed), x)
        ttnn.execute_trace(device, first)
        ttnn.execute_trace(device, second)
        want = ttnn.silu(x)
        assert torch.equal(ttnn.to_torch(taken), ttnn.to_torch(ttnn.abs(want)))
        assert torch.equal(ttnn.to_torch(z).reshape(1, 1, 32, 64), ttnn.to_torch(ttnn.exp(ttnn.add(want, want))))
        del want  # its memory is an intermediate's of the trace


def test_a_replay_writes_in_place(device):
    cache = ttnn.zeros((1, 2, 64, 64), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
    x = ttnn.to_device(host(0, (1, 2, 32, 64)), device)
    trace, _ = captured(device, lambda: ttnn.fill_cache(cache, x, 0))
    ttnn.copy_host_to_device_tensor(host(5, (1, 2, 32, 64)), x)
    ttnn.execute_trace(device, trace)
    assert torch.equal(ttnn.to_torch(cache)[:, :, :32], ttnn.to_torch(x))


def _legal():
    for name, cases in sorted(CASES.items()):
        for i, case in enumerate(cases):
            if isinstance(case, Case) and case.system == "n150":
                yield pytest.param(name, case, id=f"{name}-{i}")


@pytest.fixture(scope="module")
def one_device():
    device = open_system("n150")
    yield device
    ttnn.close_device(device)


#: Without a seed a replay draws anew.
DRAWN = {"ttnn.rand", "ttnn.randn", "ttnn.bernoulli", "ttnn.uniform"}


@pytest.mark.parametrize(("name", "case"), list(_legal()))
def test_every_op_replays_and_holds_no_tensor(name, case, one_device):
    """A compute that closes over a tensor would keep its memory for as long as the trace lives."""
    device = one_device
    level = allocated(device)

    def operands():
        generator = torch.Generator().manual_seed(0)
        return build(case.args, device, generator), build(case.kwargs, device, generator)

    args, kwargs = operands()
    want = function(name)(*args, **kwargs)
    want = read(args[case.changes] if case.changes is not None else want, case.compose)
    del args, kwargs
    args, kwargs = operands()
    trace = ttnn.begin_trace_capture(device)
    refusal = None
    try:
        got = function(name)(*args, **kwargs)
    except (ttnn.DeviceRejects, ttnn.NotEmulated) as e:
        refusal = str(e)
    ttnn.end_trace_capture(device, trace)
    if refusal is not None:
        assert re.search("trace.capture", refusal), f"{name}: {refusal}"
        return
    if name != "ttnn.deallocate":
        ttnn.execute_trace(device, trace)
        got = args[case.changes] if case.changes is not None else got
        got = read(got, case.compose)
        if name in DRAWN and not (case.kwargs.get("seed") or isinstance(case.args[-1], int)):
            assert (got.shape, got.dtype) == (want.shape, want.dtype)
            assert not torch.equal(got, want)
        else:
            same(got, want, name)
    del got, args, kwargs
    assert allocated(device) == level, f"{name}: the trace keeps a tensor alive"
    ttnn.release_trace(device, trace)


def same(got, want, name):
    if isinstance(want, torch.Tensor):
        assert torch.equal(got.nan_to_num(), want.nan_to_num()), f"{name}: the replay differs from the run"
    elif isinstance(want, (list, tuple)):
        for g, w in zip(got, want, strict=True):
            same(g, w, name)


# ---------------------------------------------------------------- refusals, in the library's words (ttnn 0.81.1)
def test_host_transfers_inside_a_capture(device):
    x = ttnn.to_device(host(), device)
    trace = ttnn.begin_trace_capture(device)
    for call, what in (
        (lambda: ttnn.to_torch(x), "Reads"), (lambda: ttnn.from_device(x), "Reads"),
        (lambda: ttnn.copy_host_to_device_tensor(host(), x), "Writes"), (lambda: ttnn.to_device(host(), device),
        "Writes"),
        (lambda: ttnn.zeros((1, 1, 32, 32), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device), "Writes"),
    ):  # fmt: skip
        with pytest.raises(ttnn.DeviceRejects, match=f"{what} are not supported during trace capture."):
            call()
    ttnn.end_trace_capture(device, trace)


def test_programs_must_have_run_before(device):
    x = ttnn.to_device(host(), device)
    trace = ttnn.begin_trace_capture(device)
    with pytest.raises(ttnn.DeviceRejects, match="Cannot load new binaries during trace capture"):
        ttnn.silu(x)
    ttnn.end_trace_capture(device, trace)
    ttnn.silu(x)
    device.clear_program_cache()
    trace = ttnn.begin_trace_capture(device)
    with pytest.raises(ttnn.DeviceRejects, match="Warm up before capturing a trace"):
        ttnn.silu(x)
    ttnn.end_trace_capture(device, trace)


def test_captures_do_not_nest_and_end_once(device):
    trace = ttnn.begin_trace_capture(device, cq_id=0)
    assert ttnn.is_trace_capture_active(device)
    with pytest.raises(ttnn.DeviceRejects, match="CQ 0 is already being used for tracing"):
        ttnn.begin_trace_capture(device, cq_id=0)
    with pytest.raises(ttnn.DeviceRejects, match="CQ 1 is not being used for tracing tid 0"):
        ttnn.end_trace_capture(device, trace, cq_id=1)
    ttnn.end_trace_capture(device, trace, cq_id=0)
    assert not ttnn.is_trace_capture_active(device)
    with pytest.raises(ttnn.DeviceRejects, match="CQ 0 is not being used for tracing tid 0"):
        ttnn.end_trace_capture(device, trace, cq_id=0)


def test_a_released_trace_is_gone(device):
    x = ttnn.to_device(host(), device)
    trace, _ = captured(device, lambda: ttnn.silu(x))
    ttnn.release_trace(device, trace)
    ttnn.release_trace(device, trace)
    with pytest.raises(ttnn.DeviceRejects, match=f"Trace instance 0 must exist on Mesh device {device.id()}'s active"):
        ttnn.execute_trace(device, trace)
    with pytest.raises(TypeError, match="incompatible"):
        ttnn.execute_trace(device, 0)


def test_a_region_too_small():
    with opened(trace_region_size=1024) as device:
        x = ttnn.to_device(host(), device)
        for _ in range(2):
            y = ttnn.silu(x)
        trace = ttnn.begin_trace_capture(device)
        for _ in range(2):
            y = ttnn.silu(x)  # noqa: F841
        with pytest.raises(ttnn.DeviceRejects, match="but only 1024B is allocated for trace region"):
            ttnn.end_trace_capture(device, trace)


def test_the_default_region_lies_in_dram_and_takes_any_trace():
    with opened() as device:
        x = ttnn.to_device(host(), device)
        trace, y = captured(device, lambda: ttnn.silu(x))
        ttnn.execute_trace(device, trace)
        assert torch.equal(ttnn.to_torch(y), ttnn.to_torch(ttnn.silu(x)))


def test_tensors_that_a_replay_would_overwrite(device):
    x, w = ttnn.to_device(host(), device), ttnn.to_device(host(1, (64, 64)), device)
    trace, y = captured(device, lambda: step(x, w))
    later = ttnn.to_device(host(), device)
    ttnn.execute_trace(device, trace)
    assert torch.equal(ttnn.to_torch(y), ttnn.to_torch(step(x, w)))
    for use in (ttnn.to_torch, lambda t: ttnn.to_torch(ttnn.silu(t)), lambda t: ttnn.fill_cache(t, x, 0)):
        with pytest.raises(ttnn.NotEmulated, match="a device corrupts it in silence"):
            use(later)
    ttnn.copy_host_to_device_tensor(host(3), later)
    assert torch.equal(ttnn.to_torch(later), ttnn.to_torch(host(3)))
    ttnn.deallocate(later)
    ttnn.execute_trace(device, trace)
    ttnn.deallocate(w)
    with pytest.raises(ttnn.NotEmulated, match="freed after the capture"):
        ttnn.execute_trace(device, trace)
    del y


def test_what_programs_keep_and_a_replay_overwrites():
    mesh = open_system("n300")
    try:
        x = ttnn.from_torch(torch.randn(1, 1, 32, 64), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=mesh)
        trace, y = captured(mesh, lambda: ttnn.abs(ttnn.silu(x, memory_config=ttnn.L1_MEMORY_CONFIG)))
        ttnn.all_gather(x, dim=3)  # its semaphores lie where the trace's intermediate did
        second, _ = captured(mesh, lambda: ttnn.all_gather(x, dim=3))
        ttnn.execute_trace(mesh, second)
        ttnn.execute_trace(mesh, trace)
        for use in (lambda: ttnn.all_gather(x, dim=3), lambda: ttnn.execute_trace(mesh, second)):
            with pytest.raises(ttnn.NotEmulated, match="what all_gather keeps in L1 is lost"):
                use()
        cores = ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(7, 7))})
        semaphore = ttnn.create_global_semaphore(mesh, cores, 0)
        with pytest.raises(ttnn.NotEmulated, match="a global semaphore is lost"):
            ttnn.execute_trace(mesh, trace)
        del semaphore, y
    finally:
        ttnn.close_mesh_device(mesh)


def test_the_log_of_a_replay_has_its_programs(device):
    x, w = ttnn.to_device(host(), device), ttnn.to_device(host(1, (64, 64)), device)
    with ttnn.record() as run:
        step(x, w)
    trace, _ = captured(device, lambda: step(x, w))
    with ttnn.record() as replay:
        ttnn.execute_trace(device, trace)
    assert [r.op for r in replay] == ["ttnn.execute_trace"]
    assert [each.op for each in replay[0].launches] == [each.op for r in run for each in r.launches]
    assert replay[0].flops == sum(r.flops for r in run)


def test_a_capture_without_values(device):
    with ttnn.spec_only():
        x, w = ttnn.to_device(host(), device), ttnn.to_device(host(1, (64, 64)), device)
        trace, y = captured(device, lambda: step(x, w))
        ttnn.execute_trace(device, trace)
        assert tuple(y.shape) == (1, 1, 32, 64)


# ---------------------------------------------------------------- queues and events
def test_queues_that_are_not_there():
    with opened() as device:
        x = ttnn.to_device(host(), device)
        for call in (
            lambda: ttnn.begin_trace_capture(device, cq_id=1), lambda: ttnn.record_event(device, 1),
            lambda: ttnn.synchronize_device(device, 1), lambda: ttnn.copy_host_to_device_tensor(host(), x, cq_id=1),
            lambda: ttnn.to_torch(x, cq_id=1), lambda: ttnn.wait_for_event(1, ttnn.record_event(device, 0)),
        ):  # fmt: skip
            with pytest.raises(ttnn.DeviceRejects, match="cq_id 1 is out of range"):
                call()
        ttnn.event_synchronize(ttnn.record_event(device, ttnn.QueueId(0)))


def test_a_queue_waits_for_what_another_one_writes(device):
    x = ttnn.to_device(host(), device)
    trace, y = captured(device, lambda: ttnn.silu(x))
    before = ttnn.record_event(device, 1)
    ttnn.copy_host_to_device_tensor(host(3), x, cq_id=1)
    ttnn.wait_for_event(0, before)
    with pytest.raises(ttnn.NotEmulated, match="queue 0 reads a tensor that queue 1 has written"):
        ttnn.execute_trace(device, trace, cq_id=0, blocking=False)
    ttnn.wait_for_event(0, ttnn.record_event(device, 1))
    ttnn.execute_trace(device, trace, cq_id=0, blocking=False)
    assert torch.equal(ttnn.to_torch(y), ttnn.to_torch(ttnn.silu(x)))
    ttnn.copy_host_to_device_tensor(host(4), x, cq_id=1)
    ttnn.synchronize_device(device)
    ttnn.execute_trace(device, trace, cq_id=0)


def test_no_waiting_inside_a_capture(device):
    event = ttnn.record_event(device, 1)
    trace = ttnn.begin_trace_capture(device)
    with pytest.raises(ttnn.DeviceRejects, match="Event Synchronization is not supported during trace capture"):
        ttnn.wait_for_event(0, event)
    ttnn.end_trace_capture(device, trace)
