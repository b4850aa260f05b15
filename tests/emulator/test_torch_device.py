"""Device tensors on another torch device: on a GPU where there is one, and always on one that is pretended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bringup import backends
from bringup.backends import model_files
from bringup.checkpoints import sources
from tests.emulator.case import Case, read, relative_l2
from tests.emulator.pretend_gpu import GPU, pretend_gpu
from tests.emulator.test_ops import _params, _run, _tensors, devices  # noqa: F401  the fixture
from ttnn_emulator import numerics, torch_device

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models/meta-llama/Llama-3.2-1B/n150/functional/model.py"
#: `fast` adds in another order elsewhere: relative L2 distance from the CPU's results.
FAST = 0.03
RANDOM = {"ttnn.sampling", "ttnn.rand", "ttnn.uniform", "ttnn.bernoulli", "ttnn.dropout", "ttnn.randn"}
#: Where the two modes are two computations.
PRODUCTS = ("ttnn.linear", "ttnn.matmul", "ttnn.transformer.scaled", "ttnn.transformer.paged", "ttnn.transformer.chunk")


def _cases():
    """The first case of each op, products in both modes; the others are slow."""
    seen = set()
    for param in _params(Case):
        name = param.values[0]
        for mode in numerics.MODES:
            quick = name not in seen and (mode == "exact" or name.startswith(PRODUCTS))
            yield pytest.param(*param.values, mode, id=f"{param.id}-{mode}", marks=() if quick else pytest.mark.slow)
        seen.add(name)


@pytest.mark.parametrize(("name", "case", "mode"), list(_cases()))
def test_every_op_on_a_pretended_gpu(name, case, mode, devices, monkeypatch):  # noqa: F811
    """The CPU's bits in `exact`, close to them in `fast`; contents stay on the GPU."""
    device = devices(case.system)
    with numerics.use(mode):
        want = read(_run(name, case, device)[1], case.compose)
        with pretend_gpu(monkeypatch):
            result = _run(name, case, device)[1]
            got = read(result, case.compose)
            for tensor in _tensors(result):
                if tensor.buffer is not None and tensor.buffer.store.data is not None:
                    assert all(getattr(v, "kept", v).device == GPU for v in tensor.held()), f"{name}: left the GPU"
    if name in RANDOM:
        return
    for g, w in zip(_list(got), _list(want), strict=True):
        if not isinstance(w, torch.Tensor):
            assert g == w
        elif mode == "exact" or not w.is_floating_point():
            assert torch.equal(g.nan_to_num(), w.nan_to_num()), f"{name}: other bits than on the CPU"
        else:
            assert relative_l2(g.nan_to_num(), w.nan_to_num()) <= FAST, name


def _list(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


@pytest.mark.parametrize("mode", numerics.MODES)
def test_a_model_on_a_pretended_gpu(mode, monkeypatch):
    """Prefill and three steps of the small Llama."""
    backends.activate("emulator")

    def logits():
        hf = sources.load_hf_model(sources.find_source(str(ROOT / "checkpoints/tiny-llama")), "float32")
        model_file = model_files.load_model_file(str(MODEL))
        with backends.open_system("n150") as device, torch.no_grad():
            model, rows, cache = model_files.build(model_file, hf, device, 64), [], None
            for tokens in ([[1, 5, 9, 300, 7]], [[11]], [[12]], [[13]]):
                out = model(torch.tensor(tokens), past_key_values=cache)
                cache, rows = out.past_key_values, [*rows, out.logits[0, -1]]
            return torch.stack(rows)

    with numerics.use(mode):
        want = logits()
        with pretend_gpu(monkeypatch):
            got = logits()
    assert torch.equal(got, want) if mode == "exact" else relative_l2(got, want) < FAST


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
@pytest.mark.parametrize("mode", numerics.MODES)
def test_a_model_on_cuda(mode):
    assert evaluate("--torch-device", "cuda", "--numerics", mode).returncode == 0


def evaluate(*options):
    command = [sys.executable, ROOT / "eval.py", MODEL, "--model", ROOT / "checkpoints/tiny-llama", *options]
    env = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*command, "--max_new_tokens", "8"], check=False, capture_output=True, text=True, cwd=ROOT, env=env
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    done = evaluate("--torch-device", "cuda")
    assert done.returncode == 2
    assert "torch sees no CUDA GPU here" in done.stderr


def test_choose_says_what_is_wrong():
    with pytest.raises(ValueError, match="torch device 'bogus'"):
        torch_device.choose("bogus")
    assert torch_device.chosen().type == "cpu"
