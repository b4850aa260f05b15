"""Every public op against its cases: values, grid, spec, memory, refusals. An op without a case fails."""

import importlib
import pkgutil

import pytest
import torch

import tests.emulator.cases as families
import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, build, open_system, read, relative_l2
from ttnn_emulator import numerics
from ttnn_emulator.dtypes import BLOCK_FORMATS
from ttnn_emulator.op import REGISTRY
from ttnn_emulator.ops.core.transfer import host_cast

CASES: dict[str, list] = {}
for _module in pkgutil.iter_modules(families.__path__):
    CASES.update(importlib.import_module(f"{families.__name__}.{_module.name}").CASES)
#: Aliases share the function, and so the cases, of their first name.
NAMES = sorted({call.op_name for call in REGISTRY.values()})


@pytest.fixture(scope="module")
def devices():
    opened = {}

    def get(system):
        if system not in opened:
            opened[system] = open_system(system)
        return opened[system]

    yield get
    for device in opened.values():
        ttnn.close_mesh_device(device)
    ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)


def function(name):
    at = ttnn
    for part in name.split(".")[1:]:
        at = getattr(at, part)
    return at


@pytest.mark.parametrize("name", NAMES)
def test_every_op_has_a_case(name):
    assert CASES.get(name), f"{name} has no entry in tests/emulator/cases"


def test_no_case_without_an_op():
    assert not sorted(set(CASES) - set(REGISTRY))


def _params(kind) -> list:
    params = []
    for name, cases in sorted(CASES.items()):
        of_kind = [c for c in cases if isinstance(c, kind)]
        params += [pytest.param(name, c, id=f"{name}-{i}") for i, c in enumerate(of_kind)]
    return params


def _tensors(value):
    if isinstance(value, ttnn.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _tensors(v)


def _run(name, case, device):
    generator = torch.Generator().manual_seed(0)
    args, kwargs = build(case.args, device, generator), build(case.kwargs, device, generator)
    before = read(args, case.compose), read(kwargs, case.compose)
    result = function(name)(*args, **kwargs)
    return before, args[case.changes] if case.changes is not None else result, (args, kwargs)


@pytest.mark.parametrize("mode", numerics.MODES)
@pytest.mark.parametrize(("name", "case"), _params(Case))
def test_values(name, case, mode, devices):
    device = devices(case.system)
    with numerics.use(mode):
        (args, kwargs), result, _ = _run(name, case, device)
        got = read(result, case.compose)
    for tensor in _tensors(result):
        if tensor.is_allocated():
            for held in tensor.contents():
                assert tuple(held.shape) == tuple(tensor.shape), f"{name}: contents and spec differ in shape"
                if tensor.dtype in BLOCK_FORMATS:
                    again = host_cast(held.float(), tensor.dtype)
                    assert torch.equal(again.float(), held.float()), f"{name}: values off the grid of {tensor.dtype}"
    if case.reference is None:
        assert case.note, f"{name}: a case without a reference says why"
        return
    want = case.reference(*args, **kwargs)
    pairs = [(got, want)] if isinstance(want, torch.Tensor) else list(zip(got, want, strict=True))
    for g, w in pairs:
        assert tuple(g.shape) == tuple(w.shape), f"{name}: {tuple(g.shape)}, reference {tuple(w.shape)}"
        distance = relative_l2(g, w)
        assert distance <= case.tolerance, f"{name}{case.kwargs or ''}: {distance:.2e} from the reference ({mode})"


@pytest.mark.parametrize(("name", "case"), _params(Case))
def test_spec_only_gives_the_same_specs(name, case, devices):
    device = devices(case.system)
    _, real, keep = _run(name, case, device)
    generator = torch.Generator().manual_seed(0)
    with ttnn.spec_only():
        args, kwargs = build(case.args, device, generator), build(case.kwargs, device, generator)
        result = function(name)(*args, **kwargs)
        result = args[case.changes] if case.changes is not None else result
        assert [t.spec for t in _tensors(result)] == [t.spec for t in _tensors(real)]
        assert [t.topology for t in _tensors(result)] == [t.topology for t in _tensors(real)]
    del keep


@pytest.mark.parametrize(("name", "case"), _params(Case))
def test_memory_returns_to_its_level(name, case, devices):
    device = devices(case.system)
    _run(name, case, device)  # a program may keep tables and semaphores for as long as it is cached
    level = {k: v["allocated"] for k, v in device.memory().items()}
    done = _run(name, case, device)
    del done
    assert {k: v["allocated"] for k, v in device.memory().items()} == level


@pytest.mark.parametrize(("name", "case"), _params(Refused))
def test_refused(name, case, devices):
    device = devices(case.system)
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(case.error, match=case.match):
        function(name)(*build(case.args, device, generator), **build(case.kwargs, device, generator))
