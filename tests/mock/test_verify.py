"""`bringup verify`: the comparison of two accounts, and planted illegal calls on the library and the emulator."""

import copy
from pathlib import Path

import pytest

from bringup.backends import verify
from bringup.errors import BringupError
from tests.mock.test_mock import ROOT, both_sides, needs_wheel

# The comparison


def account(*records, peaks=(0, 0)):
    stages = [{"name": "build", "dram_peak": peaks[0], "l1_peak": peaks[1]}]
    return {"records": list(records), "stages": stages, "failed": None}


def call(op="ttnn.add", shape=(1, 32), dram=100, l1=0, chips=1):
    spec = {"shape": list(shape), "dtype": "bfloat16"}
    memory = {"dram_bytes": dram, "l1_bytes": l1, "chips": chips}
    return {"op": op, "inputs": [spec], "outputs": [spec], "line": "model.py:1"} | memory


def test_equal_accounts_agree():
    assert verify.compare(account(call(), call("ttnn.mul")), account(call(), call("ttnn.mul"))) is None


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (call("ttnn.mul"), "op"),
        (call(shape=(1, 64)), "outputs"),
        (call(dram=101), "dram_bytes"),
        (call(l1=32), "l1_bytes"),
    ],
)
def test_the_first_difference_is_found(other, what):
    difference = verify.compare(account(call(), call()), account(call(), other))
    assert (difference["what"], difference["at"]) == (what, 1)
    assert difference["emulator"] == other
    assert what in "\n".join(verify._difference(difference))


def test_operands_count():
    other = call()
    other["inputs"] = copy.deepcopy(other["inputs"]) * 2
    assert verify.compare(account(call()), account(other))["what"] == "inputs"


def test_a_longer_account_differs():
    difference = verify.compare(account(call(), call("ttnn.mul")), account(call()))
    assert difference["what"] == "only the mock side goes on"
    assert difference["mock"]["op"] == "ttnn.mul"


def test_what_touches_no_device_is_not_compared():
    assert verify.compare(account(call(dram=7), call("ttnn.to_torch")), account(call(dram=0, chips=0))) is None


@pytest.mark.parametrize(("peak", "agrees"), [(1010, True), (1011, False)])
def test_peaks_may_differ_by_one_percent(peak, agrees):
    difference = verify.compare(account(peaks=(1000, 0)), account(peaks=(peak, 0)))
    assert (difference is None) == (agrees or peak - 1000 <= 0.01 * peak)
    far = verify.compare(account(peaks=(1000, 0)), account(peaks=(1020, 0)))
    assert far["what"] == "dram_peak of build"


def test_ops_of_one_layer_are_counted():
    layer = ["norm", "linear", "heads", "linear", "add"]
    assert verify.ops_per_layer(["embedding", *layer, *layer, *layer, "norm"]) == 5
    assert verify.ops_per_layer(["embedding", *layer, "norm"]) is None


def test_the_reason_has_no_addresses():
    text = "TT_FATAL @ /x/y.cpp:79: a == b\ninfo:\nWidths differ: 1 and 2\nbacktrace:\n --- main+0x7f\n"
    assert verify.reason(text)[-1] == "Widths differ: 1 and 2"


# Planted illegal calls

MODEL = """
import torch
import ttnn

class Model(torch.nn.Module):
    def __init__(self, device):
        super().__init__()
        self.device = device

    def put(self, *shape, dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, memory_config=ttnn.DRAM_MEMORY_CONFIG):
        return ttnn.zeros(shape, dtype=dtype, layout=layout, device=self.device, memory_config=memory_config)

    def forward(self, input_ids, past_key_values=None):
        {body}

def build_model(hf_model, tt_device, max_seq_len):
    return Model(tt_device)
"""
LINE = 1 + MODEL[: MODEL.index("{body}")].count("\n")

NEW = (
    "ttnn.{op}((1, 1, {rows}, {width}), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=self.device, "
    "memory_config=ttnn.{memory}_MEMORY_CONFIG)"
)
PLANTED = {
    "wrong dtype into fill_cache": (
        "ttnn.fill_cache(self.put(1, 8, 128, 64, dtype=ttnn.bfloat8_b), self.put(1, 8, 32, 64), 0)",
        "Input and cache tensors must have same dtype!",
    ),
    "unsharded input to paged_update_cache": (
        "ttnn.experimental.paged_update_cache(self.put(1, 8, 128, 64), self.put(1, 1, 8, 64), update_idxs=[0])",
        None,
    ),
    "head_dim of 96 in RoPE": (
        "ttnn.experimental.rotary_embedding(self.put(1, 8, 32, 96), self.put(1, 1, 32, 96), self.put(1, 1, 32, 96))",
        None,
    ),
    # `empty` holds nothing on the host, where the library's `zeros` would hold all 16 GiB
    "a weight too large for DRAM": (NEW.format(op="empty", rows=131072, width=65536, memory="DRAM"), "Out of Memory"),
    "L1 too small": (NEW.format(op="zeros", rows=16384, width=4096, memory="L1"), "Out of Memory"),
}


LLAMA = {"model": "meta-llama/Llama-3.2-1B", "system": "n150", "layers": 1, "max_seq_len": 128}


@pytest.fixture
def both(tmp_path, monkeypatch):
    """The plan of a model file whose forward is `body`, and the accounts of both sides."""
    monkeypatch.chdir(ROOT)

    def run(body):
        path = tmp_path / "model.py"
        path.write_text(MODEL.replace("{body}", body))
        plan = LLAMA | {"path": str(path), "lengths": [17], "steps": 1}
        return plan, both_sides(plan)

    return run


@needs_wheel
@pytest.mark.parametrize("name", PLANTED)
def test_planted_illegal_calls_are_refused_alike(name, both):
    body, words = PLANTED[name]
    _, results = both(body)
    library, emulator = (results[side]["failed"] for side in ("mock", "emulator"))
    assert library, "the library takes it"
    assert emulator, "the emulator takes it"
    lines = {Path(f["line"].rpartition(":")[0]).name + ":" + f["line"].rpartition(":")[2] for f in (library, emulator)}
    assert lines == {f"model.py:{LINE}"}
    assert words is None or words in library["error"]
    assert verify.same_reason(library["error"], emulator["error"]), f"{library['error']}\n---\n{emulator['error']}"
    assert not verify.judge(results)["passed"]


ENDS = {
    "at import": (MODEL.replace("{body}", "return None") + "\nsys.exit(0)\n", "SystemExit while loading it"),
    "in build_model": (
        MODEL.replace("    return Model(tt_device)", "    os._exit(0)"),
        "it ends the process, with exit code 0",
    ),
    "in forward": (MODEL.replace("{body}", "raise SystemExit(0)"), "SystemExit"),
}


@pytest.mark.parametrize("place", ENDS)
def test_a_model_file_that_ends_the_process_does_not_pass(place, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text, words = ENDS[place]
    path = tmp_path / "model.py"
    path.write_text("import os\nimport sys\n" + text.replace("{body}", "return None"))
    plan = LLAMA | {"path": str(path), "lengths": [17], "steps": 1}
    try:
        said = verify.run_side("emulator", plan, timeout=300)["failed"]
    except BringupError as error:  # before, or without, an account of what ran
        said = error
    assert words in str(said)


@needs_wheel
def test_the_librarys_warnings_are_repeated_from_both_sides(both):
    plan, results = both(
        "c = ttnn.WormholeComputeKernelConfig(math_fidelity=ttnn.MathFidelity.HiFi4, fp32_dest_acc_en=True); "
        "ttnn.matmul(self.put(32, 32), self.put(32, 32), compute_kernel_config=c)"
    )
    library, emulator = (results[side]["warnings"] for side in ("mock", "emulator"))
    assert library == emulator
    assert "Prefer using HiFi3 with fp32 accumulation on Wormhole." in library[0]
    assert sum("warning: On Wormhole" in line for line in verify.report(plan, results, verify.judge(results))) == 2


@needs_wheel
def test_a_shipped_model_builds_prefills_and_decodes_on_the_library(monkeypatch):
    monkeypatch.chdir(ROOT)
    path = ROOT / "models/meta-llama/Llama-3.2-1B/n150/functional/model.py"
    result = verify.run_side("mock", LLAMA | {"path": str(path), "lengths": [31], "steps": 2}, timeout=300)
    assert result["failed"] is None
    assert [s["name"] for s in result["stages"]] == ["build", "prefill 31", "decode 32 to 33"]
    assert all(s["dram_peak"] >= s["dram_bytes"] > 0 for s in result["stages"])
    assert verify.judge({"mock": result})["passed"]
