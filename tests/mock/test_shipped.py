"""Every model file on the vendor's library, ours at their true width, and the emulator's account of the same."""

import pytest

from bringup.backends import model_files, verify
from bringup.checkpoints import known
from tests.mock.test_mock import ROOT, both_sides, needs_wheel

# Of models whose true configuration is known: the library is shown each at its true width.
FILES = [
    path
    for path in sorted(ROOT.glob("models/*/*/*/*/model.py"))
    if model_files.describe(path).hf_id in known.known_ids()
]
FOREIGN = sorted(ROOT.glob("tests/foreign/*_by_hand.py"))


def test_there_are_model_files():
    assert len(FILES) >= 12


@needs_wheel
@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(p.parts[-4:-1]))
def test_the_library_takes_it_and_the_emulators_log_agrees(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = model_files.describe(path)
    agree(path, found.hf_id, found.system)


@needs_wheel
@pytest.mark.slow
@pytest.mark.parametrize("path", FOREIGN, ids=lambda p: p.stem)
def test_files_written_straight_against_ttnn_agree_too(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    agree(path, "checkpoints/tiny-llama", "n300" if "MESH_SHAPE" in path.read_text() else "n150")


@needs_wheel
@pytest.mark.slow
def test_the_serving_stack_on_eight_chips(tmp_path, monkeypatch):
    from tests.foreign.test_foreign import on_eight_chips

    monkeypatch.chdir(ROOT)
    text = (ROOT / "tests/foreign/llama_serving_stack_by_hand.py").read_text()
    (tmp_path / "model.py").write_text(text.replace("MESH_SHAPE = (1, 2)", "MESH_SHAPE = (1, 8)"))
    on_eight_chips().save_pretrained(tmp_path)
    agree(tmp_path / "model.py", str(tmp_path), "t3000_1x8")


def agree(path, model, system):
    plan = {"path": str(path), "model": model, "system": system, "layers": verify.LAYERS}
    plan |= {"lengths": verify.LENGTHS, "steps": verify.STEPS, "max_seq_len": verify.MAX_SEQ_LEN}
    results = both_sides(plan, timeout=900)
    verdict = verify.judge(results)
    assert verdict["passed"], "\n".join(verify.report(plan, results, verdict))
    assert len(results["mock"]["stages"]) == 1 + 2 * len(verify.LENGTHS)


@needs_wheel
@pytest.mark.parametrize(("system", "on"), [("n150", "p150"), ("n300", "p300")])
def test_a_shipped_file_on_blackhole(system, on, monkeypatch):
    monkeypatch.chdir(ROOT)
    agree(ROOT / f"models/meta-llama/Llama-3.2-1B/{system}/functional/model.py", "checkpoints/tiny-llama", on)
