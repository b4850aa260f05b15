"""GGUF files as checkpoints: de-quantised as their blocks say, told in one line, and refused when they are damaged."""

import json
import os
import struct

import numpy as np
import pytest
import torch

gguf = pytest.importorskip("gguf", reason="pip install 'ttnn-bringup[gguf]'")
pytest.importorskip("accelerate", reason="pip install 'ttnn-bringup[gguf]'")

from bringup import cli  # noqa: E402
from bringup.checkpoints import configuration, sources  # noqa: E402
from bringup.errors import BadInput  # noqa: E402
from tests.checkpoints import gguf_file  # noqa: E402

GATE = "model.layers.1.mlp.gate_proj.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gguf")


@pytest.fixture(scope="module")
def file(folder):
    gguf_file.write(folder / "tiny.gguf")
    return folder / "tiny.gguf"


def by_hand(file, name):
    """A Q8_0 tensor from its bytes: blocks of a float16 scale and 32 int8."""
    (tensor,) = (t for t in gguf.GGUFReader(file).tensors if t.name == name)
    raw = np.asarray(tensor.data).reshape(-1, 34)
    scale = raw[:, :2].copy().view(np.float16).astype(np.float32)
    return torch.from_numpy(scale * raw[:, 2:].view(np.int8)).reshape(tuple(int(n) for n in tensor.shape[::-1]))


def test_weights_are_the_blocks_values_in_bfloat16(file, folder):
    source = sources.find_source(str(file), cache_dir=folder / "cache")
    model = sources.load_hf_model(source, cache_dir=folder / "cache")
    got = dict(model.named_parameters())
    assert got[GATE].dtype == torch.bfloat16
    assert torch.equal(got[GATE], by_hand(file, "blk.1.ffn_gate.weight").bfloat16())
    heads = model.config.num_attention_heads
    q = got["model.layers.0.self_attn.q_proj.weight"].detach().float().numpy()
    want = by_hand(file, "blk.0.attn_q.weight").bfloat16().float().numpy()
    assert np.array_equal(gguf_file.interleaved(q, heads), want)
    assert "Q8_0" in source.note
    assert "de-quantised to bfloat16" in source.note
    assert source.name.endswith("tiny.gguf")


def test_its_logits_are_near_the_models_that_it_was_made_from(file, folder):
    hf = gguf_file.write(folder / "again.gguf")
    model = sources.load_hf_model(sources.find_source(str(file), cache_dir=folder / "cache"), "float32")
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        want, got = hf(ids).logits, model(ids).logits
    assert float((got - want).norm() / want.norm()) < 0.05, "8 bits and bfloat16; another order of rows is over 1"


def test_float_files_keep_their_format(folder):
    gguf_file.write(folder / "half.gguf", "F16")
    source = sources.find_source(str(folder / "half.gguf"), cache_dir=folder / "cache")
    assert sources.load_hf_model(source).dtype == torch.float16
    assert "taken in float16" in source.note


def test_it_is_made_once_and_again_when_the_file_is_another(folder):
    place = folder / "changed"
    place.mkdir()
    gguf_file.write(place / "a.gguf")
    first = sources.find_source(str(place / "a.gguf"), cache_dir=place)
    kept = (first.directory / "model.safetensors").stat().st_mtime_ns
    assert sources.find_source(str(place / "a.gguf"), cache_dir=place) == first
    assert (first.directory / "model.safetensors").stat().st_mtime_ns == kept
    gguf_file.write(place / "a.gguf", "Q4_1")
    second = sources.find_source(str(place / "a.gguf"), cache_dir=place)
    assert second.directory != first.directory
    assert second.fingerprint(place) != first.fingerprint(place)
    assert len([p for p in (place / "gguf").iterdir() if p.name.startswith(".")]) == 0


def test_a_directory_that_holds_one(file, folder, tmp_path):
    os.link(file, tmp_path / "only.gguf")
    assert sources.find_source(str(tmp_path), cache_dir=folder / "cache").directory.is_dir()
    config, _, flag = configuration.find(str(tmp_path), "me/mine")
    assert (config.num_hidden_layers, config.rms_norm_eps) == (2, 1e-6)
    assert flag.endswith("only.gguf")
    os.link(file, tmp_path / "second.gguf")
    with pytest.raises(BadInput, match=r"which GGUF file(.|\n)*only.gguf, second.gguf"):
        sources.find_source(str(tmp_path))


def test_a_config_beside_it_is_the_models(folder, tmp_path):
    gguf_file.write(tmp_path / "scaled.gguf", extra=["rope_freqs.weight"])
    with pytest.raises(BadInput, match=r"rope_freqs.weight(.|\n)*config.json beside"):
        sources.find_source(str(tmp_path / "scaled.gguf"), cache_dir=tmp_path)
    config = gguf_file.tiny.hf_model().config
    scaling = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict() | {"rope_parameters": scaling}))
    source = sources.find_source(str(tmp_path / "scaled.gguf"), cache_dir=tmp_path)
    assert sources.load_config(source).rope_parameters["factor"] == 4.0
    assert sources.find_source(str(tmp_path), cache_dir=tmp_path).directory == source.directory


def cut(share):
    return lambda data: data[: int(len(data) * share)]


def put(form, value, at):
    packed = struct.pack("<" + form, value)
    return lambda data: data[:at] + packed + data[at + len(packed) :]


def renamed(old, new):
    return lambda data: data.replace(old.encode(), new.encode(), 1)


DAMAGED = {
    "empty": (cut(0), "ends in its header"),
    "another magic": (lambda data: b"GGML" + data[4:], "does not begin with GGUF"),
    "a pointer": (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "does not begin with GGUF"),
    "a version to come": (put("I", 9, 4), "version 9"),
    "big endian": (put("I", 3 << 24, 4), "version 50331648"),
    "tensors without end": (put("Q", 1 << 60, 8), "tensors at byte"),
    "metadata without end": (put("Q", 1 << 62, 16), "values of metadata"),
    "a key without end": (put("Q", 1 << 63, 24), "a text of 9223372036854775808 bytes"),
    "cut in the header": (cut(0.01), "is no GGUF file"),
    "cut in the weights": (cut(0.6), "the file is not whole"),
    "cut by a byte": (lambda data: data[:-1], "the file is not whole"),
    "a name twice": (renamed("blk.1.ffn_up.weight", "blk.0.ffn_up.weight"), "two tensors have one name"),
    "an unknown tensor": (renamed("blk.1.ffn_up.weight", "blk.1.ffn_ap.weight"), "missing|leaves out"),
    "an unknown family": (lambda data: data.replace(b"llama", b"lmaal"), "transformers cannot read"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_in_one_message(file, tmp_path, name):
    spoil, text = DAMAGED[name]
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(BadInput, match=text):
        sources.find_source(str(bad), cache_dir=tmp_path)
    assert not list(tmp_path.glob("gguf/*")), "nothing is left behind"


MODEL = "models/HuggingFaceTB/SmolLM2-135M-Instruct/n150/functional/model.py"
COMMANDS = [
    ("plan", "FILE"),
    ("new", "FILE", "--id", "me/mine"),
    *((command, MODEL, "--model", "FILE") for command in ("eval", "demo", "check", "layers", "sweep", "accuracy")),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_every_command_refuses_a_damaged_one(file, tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(file.read_bytes()[:-1])
    assert cli.main([str(bad) if word == "FILE" else word for word in words]) == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert "bad.gguf is no GGUF file that can be read" in said
    assert "the file is not whole" in said
    assert "Traceback" not in said


def test_eval_says_what_the_weights_are(file, tmp_path, capsys):
    ids = tmp_path / "ids.txt"
    ids.write_text("5 9 17 33")
    words = ["eval", MODEL, "--model", file, "--prompt_ids_file", ids, "--max_new_tokens", 3, "--cache_dir", tmp_path]
    assert cli.main(list(map(str, words))) == 0
    out = capsys.readouterr().out
    assert "weights: tiny.gguf holds F32, Q8_0; de-quantised to bfloat16: HF and the device both run with these" in out
    assert json.loads(out.splitlines()[-1])["weights_note"].startswith("tiny.gguf holds F32, Q8_0")


def test_sizes_of_another_model_are_refused_before_memory_is_filled(tmp_path):
    gguf_file.write(tmp_path / "deep.gguf", layers=500)
    with pytest.raises(BadInput, match=r"of another model|missing"):
        sources.find_source(str(tmp_path / "deep.gguf"), cache_dir=tmp_path)


def test_without_what_reads_it(file, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"GGUF files need gguf and accelerate(.|\n)*ttnn-bringup\[gguf\]"):
        sources.find_source(str(file))
