"""Devices and tensors as objects: after close, on two devices, copied, in threads, forgotten.

What the library does was asked of ttnn 0.81.1 on a mock n150; `NotEmulated` stands where it reads memory that is not
the operand's, or ends the process.
"""

import copy
import gc
import pickle
import threading
import weakref

import pytest
import torch

import ttnn_emulator as ttnn
from ttnn_emulator.errors import DeviceRejects, NotEmulated

NO_PROGRAMS = "SubDeviceManagerTracker is not initialized on MeshDevice"
NO_QUEUE = "cq_id 0 is out of range"


def opened(**options):
    return ttnn.open_device(device_id=0, **options)


def put(device, *shape, value=0.0, **options):
    given = {"dtype": ttnn.bfloat16, "layout": ttnn.TILE_LAYOUT} | options
    return ttnn.from_torch(torch.full(shape or (32, 32), value), device=device, **given)


CLOSED = {
    "add": (NO_PROGRAMS, lambda d, x, t: ttnn.add(x, x)),
    "matmul": (NO_PROGRAMS, lambda d, x, t: ttnn.matmul(x, x)),
    "slice": (NO_PROGRAMS, lambda d, x, t: x[:, :16]),
    "to_layout": (NO_PROGRAMS, lambda d, x, t: ttnn.to_layout(x, ttnn.ROW_MAJOR_LAYOUT)),
    "zeros": (NO_QUEUE, lambda d, x, t: ttnn.zeros((32, 32), device=d)),
    "in place": (NO_PROGRAMS, lambda d, x, t: ttnn.multiply_(x, x)),
    "fill_cache": (NO_PROGRAMS, lambda d, x, t: ttnn.fill_cache(put4(d, x), put4(d, x), 0)),
    "memory view": (NO_PROGRAMS, lambda d, x, t: ttnn.get_memory_view(d, ttnn.BufferType.DRAM)),
    "release_trace": (NO_PROGRAMS, lambda d, x, t: ttnn.release_trace(d, t)),
    "to_torch": (NO_QUEUE, lambda d, x, t: ttnn.to_torch(x)),
    "cpu": (NO_QUEUE, lambda d, x, t: x.cpu()),
    "to_device": (NO_QUEUE, lambda d, x, t: ttnn.to_device(put(None), d)),
    "host to device": (NO_QUEUE, lambda d, x, t: ttnn.copy_host_to_device_tensor(put(None), x)),
    "begin capture": (NO_QUEUE, lambda d, x, t: ttnn.begin_trace_capture(d, cq_id=0)),
    "end capture": (NO_QUEUE, lambda d, x, t: ttnn.end_trace_capture(d, t, cq_id=0)),
    "execute": (NO_QUEUE, lambda d, x, t: ttnn.execute_trace(d, t, cq_id=0)),
    "event": (NO_QUEUE, lambda d, x, t: ttnn.record_event(d, 0)),
}


def put4(device, x):
    return ttnn.reshape(x, (1, 1, 32, 32))  # a view, which a closed device still gives


@pytest.mark.parametrize("what", CLOSED)
def test_a_closed_device(what):
    device = opened(trace_region_size=1 << 20)
    x = put(device)
    trace = ttnn.begin_trace_capture(device, cq_id=0)  # closing forgets an open capture
    ttnn.close_device(device)
    words, call = CLOSED[what]
    with pytest.raises(DeviceRejects, match=words):
        call(device, x, trace)


def test_what_a_closed_device_still_does():
    device = opened()
    x, before = put(device), repr(device)
    ttnn.close_device(device)
    ttnn.close_device(device)
    ttnn.synchronize_device(device)
    assert (repr(device), device.get_num_devices()) == (before, 1)
    assert x.is_allocated()
    assert (list(x.shape), x.storage_type()) == ([32, 32], ttnn.StorageType.DEVICE)
    ttnn.deallocate(x)
    assert not x.is_allocated()
    again = opened()
    assert again.id() != device.id()
    ttnn.close_device(again)


@pytest.fixture
def device():
    device = opened()
    yield device
    ttnn.close_device(device)


@pytest.fixture
def two_devices():
    devices = opened(), opened()
    yield devices
    for device in devices:
        ttnn.close_device(device)


# What the second operand on another device is told; None where the library does not look.
APART = [
    ("Operands to matmul need to be on the same device!", lambda x, y: ttnn.matmul(x, y)),
    ("Operands to matmul need to be on the same device!", lambda x, y: ttnn.linear(x, y)),
    ("Operands to eltwise binary need to be on the same device!", lambda x, y: ttnn.add(x, y)),
    ("Operands to eltwise binary need to be on the same device!", lambda x, y: x * y),
    ("Operands to eltwise binary need to be on the same device!", lambda x, y: ttnn.gt(x, y)),
    ("Operands to concat need to be on the same device.", lambda x, y: ttnn.concat([x, y], dim=0)),
    ("Output tensor needs to be on the same device as the input tensor!", lambda x, y: ttnn.copy(x, y)),
    (None, lambda x, y: ttnn.where(x, x, y)),
    (None, lambda x, y: ttnn.linear(x, x, bias=y[:1])),
    (None, lambda x, y: ttnn.add(x, x, output_tensor=y)),
]


@pytest.mark.parametrize(("words", "call"), APART)
def test_operands_on_two_devices(words, call, two_devices):
    x, y = map(put, two_devices)
    with pytest.raises(DeviceRejects if words else NotEmulated, match=words or "on device"):
        call(x, y)


REFUSE_COPIES = {
    "tensor.Tensor": lambda d: put(d),
    "multi_device.MeshDevice": lambda d: d,
    "types.Shape": lambda d: put(d).shape,
    "tensor.MemoryConfig": lambda d: ttnn.DRAM_MEMORY_CONFIG,
    "tensor.CoreCoord": lambda d: ttnn.CoreCoord(1, 1),
    "multi_device.MeshShape": lambda d: ttnn.MeshShape(1, 2),
    "types.CoreGrid": lambda d: ttnn.CoreGrid(x=1, y=1),
    "operations.core.WormholeComputeKernelConfig": lambda d: ttnn.WormholeComputeKernelConfig(),
    "operations.transformer.SDPAProgramConfig": lambda d: ttnn.SDPAProgramConfig(
        compute_with_storage_grid_size=ttnn.CoreCoord(8, 8), q_chunk_size=32, k_chunk_size=32
    ),
}


@pytest.mark.parametrize("name", REFUSE_COPIES)
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies_are_refused(name, way, device):
    with pytest.raises(TypeError, match=f"cannot pickle 'ttnn._ttnn.{name}' object"):
        way(REFUSE_COPIES[name](device))


def test_enums_are_copied():
    for value in (ttnn.bfloat16, ttnn.TILE_LAYOUT, ttnn.MathFidelity.HiFi4, ttnn.BufferType.DRAM):
        assert copy.deepcopy(value) is value
        assert pickle.loads(pickle.dumps(value)) is value


def test_spec_only_and_the_log_are_of_one_thread(device):
    inside, done, found = threading.Event(), threading.Event(), {}

    def other():
        inside.wait()
        x = put(device, value=2.0)
        found["value"] = ttnn.to_torch(ttnn.add(x, x)).unique().tolist()
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with ttnn.spec_only(), ttnn.record() as log:
        x = put(device)
        before = len(log)
        inside.set()
        done.wait(30)
        ttnn.add(x, x)
    thread.join()
    assert found["value"] == [4.0]
    assert [r.op for r in log[before:]] == ["ttnn.add"]


def test_threads_share_a_device(device):
    start = ttnn.get_memory_view(device).total_bytes_allocated_per_bank
    wrong = []

    def work(k):
        for i in range(60):
            x = put(device, 32 * (1 + (i + k) % 5), 32, value=float(k))
            y = ttnn.add(ttnn.multiply(x, x), x)
            if ttnn.to_torch(y).unique().tolist() != [k * k + k]:
                wrong.append((k, i))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    view = ttnn.get_memory_view(device)
    assert view.total_bytes_allocated_per_bank == start
    assert view.total_bytes_free_per_bank == view.total_bytes_per_bank - start


def test_a_device_that_nothing_leads_to_is_gone():
    device = opened()
    x, ref = put(device, value=1.0), weakref.ref(device)
    del device
    gc.collect()
    assert ttnn.to_torch(ttnn.add(x, x)).max() == 2, "a tensor keeps its device"
    del x
    gc.collect()
    assert ref() is None
