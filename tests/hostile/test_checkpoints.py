"""Checkpoints that are damaged, incomplete or another model's: refused by the name of the file or of the tensor."""

import json
import os
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from bringup.checkpoints import sources
from bringup.evaluation.run import Job, Settings
from tests.evaluation import tiny

W = "model.safetensors"
INDEX = "model.safetensors.index.json"
GATE, DOWN = "model.layers.0.mlp.gate_proj.weight", "model.layers.1.mlp.down_proj.weight"
K, NORM = "model.layers.1.self_attn.k_proj.weight", "model.norm.weight"


def weights(change):
    """A spoiler that changes the dict of tensors."""

    def spoil(folder):
        tensors = load_file(folder / W)
        changed = change(tensors)
        tensors = changed if isinstance(changed, dict) else tensors
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / W, metadata={"format": "pt"})

    return spoil


def config(**fields):
    def spoil(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return spoil


def put(name, value, at=(0,), dtype=None):
    def change(tensors):
        tensors[name] = tensors[name].to(dtype or tensors[name].dtype).clone()
        tensors[name][at] = value

    return weights(change)


def written(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def header(text):
    return written(W, struct.pack("<Q", len(text)) + text)


def truncated(share):
    return lambda folder: os.truncate(folder / W, int((folder / W).stat().st_size * share))


def sharded(change=lambda index, folder: None, second=lambda tensors: None):
    """Two shards and an index, which `change` spoils; `second` changes the second shard."""

    def spoil(folder):
        tensors = load_file(folder / W)
        names = sorted(tensors)
        parts = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
        index = {"metadata": {}, "weight_map": {n: file for file, ns in parts.items() for n in ns}}
        for file, ns in parts.items():
            part = {n: tensors[n] for n in ns}
            if file == "b.safetensors":
                second(part)
            save_file(part, folder / file, metadata={"format": "pt"})
        (folder / W).unlink()
        index = change(index, folder) or index
        (folder / INDEX).write_text(json.dumps(index) + "\n")

    return spoil


def remapped(name, file):
    return lambda index, folder: index["weight_map"].update({name: file})


def pickled(folder):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(folder / "PWNED"),)

    (folder / W).unlink()
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")


def loop(folder):
    (folder / W).unlink()
    (folder / W).symlink_to(folder / W)


def is_a_folder(folder):
    (folder / W).unlink()
    (folder / W).mkdir()


def is_a_pipe(folder):
    (folder / W).unlink()
    (folder / W).symlink_to("/dev/null")


CASES = {
    # what is done to it: (spoiler, what the message names)
    "missing k": (weights(lambda t: t.pop(K)), [K, "missing"]),
    "missing norm": (weights(lambda t: t.pop(NORM)), [NORM, "missing"]),
    "missing embedding": (weights(lambda t: t.pop("model.embed_tokens.weight")), ["embed_tokens", "missing"]),
    "missing layer": (
        weights(lambda t: {k: v for k, v in t.items() if ".layers.1." not in k}),
        ["layers.1", "missing"],
    ),
    "another layer wanted": (config(num_hidden_layers=3), ["layers.2", "missing"]),
    "50 layers wanted": (config(num_hidden_layers=50), ["layers.", "missing"]),
    "a layer too many": (config(num_hidden_layers=1), ["layers.1", "no part of the model"]),
    "another prefix": (weights(lambda t: {f"lm.{k}": v for k, v in t.items()}), ["embed_tokens", "missing"]),
    "another name": (weights(lambda t: t.update(x=t.pop(K))), [K]),
    "an extra tensor": (weights(lambda t: t.update(extra=torch.ones(2))), ["extra", "no part of the model"]),
    "a bias that is not read": (weights(lambda t: t.update({K[:-6] + "bias": torch.ones(32)})), ["k_proj.bias"]),
    "an untied head that is not there": (config(tie_word_embeddings=False), ["lm_head.weight", "missing"]),
    "cut": (weights(lambda t: t.update({GATE: t[GATE][:-32]})), [GATE, "shape"]),
    "transposed": (weights(lambda t: t.update({GATE: t[GATE].T})), [GATE, "shape"]),
    "swapped shapes": (weights(lambda t: t.update({GATE: t[DOWN], DOWN: t[GATE]})), [GATE, DOWN, "shape"]),
    "flat": (weights(lambda t: t.update({GATE: t[GATE].flatten()})), [GATE, "shape"]),
    "empty tensor": (weights(lambda t: t.update({GATE: torch.zeros(0, 64)})), [GATE, "shape"]),
    "another vocabulary": (config(vocab_size=2048), ["embed_tokens", "shape"]),
    "an absurd vocabulary": (config(vocab_size=1 << 24), ["embed_tokens", "shape"]),
    "another width": (config(hidden_size=128), ["shape"]),
    "NaN": (put(DOWN, float("nan"), (0, 0)), [DOWN, "not finite"]),
    "NaN norm": (put(NORM, float("nan")), [NORM, "not finite"]),
    "infinite": (put(DOWN, float("inf"), (0, 0)), [DOWN, "not finite"]),
    "minus infinite": (put(GATE, -float("inf"), (-1, -1)), [GATE, "not finite"]),
    "more than bfloat16": (put(DOWN, 3.4e38, (0, 0), torch.float32), [DOWN]),
    "more than float16": (put(DOWN, 70000.0, (0, 0)), [DOWN, "7.014e+04"]),
    "float16 that overflowed": (put(K, 70000.0, (0, 0), torch.float16), [K, "not finite"]),
    "int8": (weights(lambda t: t.update({GATE: t[GATE].to(torch.int8)})), [GATE, "quantised"]),
    "float8": (weights(lambda t: t.update({GATE: t[GATE].to(torch.float8_e4m3fn)})), [GATE, "quantised"]),
    "int32": (weights(lambda t: t.update({GATE: t[GATE].to(torch.int32)})), [GATE, "quantised"]),
    "gptq": (config(quantization_config={"quant_method": "gptq", "bits": 4}), ["quantised", "gptq", "bits 4"]),
    "fp8": (config(quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]}), ["quantised", "fp8"]),
    "awq": (config(quantization_config={"quant_method": "awq"}), ["quantised", "awq"]),
    "bitsandbytes": (config(quantization_config={"load_in_4bit": True}), ["quantised"]),
    "quantised by a string": (config(quantization_config="x"), ["quantised"]),
    "half a file": (truncated(0.5), [W, "damaged"]),
    "all but a byte": (truncated(0.9999), [W, "damaged"]),
    "eight bytes": (truncated(0.00001), [W]),
    "an empty file": (truncated(0), [W, "empty"]),
    "LFS pointer": (
        written(W, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        ["git lfs pull"],
    ),
    "a web page": (written(W, b"<!DOCTYPE html><html>" + b" " * 100), [W, "damaged"]),
    "zeros": (written(W, b"\0" * 10_000), [W, "damaged"]),
    "a lying header": (header(b'{"x":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}'), [W, "damaged"]),
    "offsets beyond": (header(b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,99999999999]}}'), [W, "damaged"]),
    "a header of a petabyte": (written(W, struct.pack("<Q", 1 << 50) + b"{}"), [W, "damaged"]),
    "no JSON in the header": (header(b"{not json"), [W, "damaged"]),
    "a deep header": (header(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), [W, "damaged"]),
    "an unknown dtype": (header(b'{"x":{"dtype":"Q4","shape":[1],"data_offsets":[0,4]}}xxxx'), [W, "damaged"]),
    "no weights": (lambda folder: (folder / W).unlink(), ["no weights"]),
    "a loop of links": (loop, [W]),
    "a folder": (is_a_folder, [W]),
    "nothing behind it": (is_a_pipe, [W]),
    "pickle": (pickled, ["cannot read the checkpoint"]),
    "pickle that is none": (
        lambda f: ((f / W).unlink(), (f / "pytorch_model.bin").write_bytes(b"x" * 99)),
        ["cannot read"],
    ),
    "an adapter": (written("adapter_config.json", b'{"base_model_name_or_path": "evil/base"}'), ["is an adapter"]),
    "an index that is a list": (sharded(lambda index, folder: [1]), [INDEX]),
    "an index without a map": (sharded(lambda index, folder: {"metadata": {}}), [INDEX]),
    "an index of numbers": (sharded(lambda index, folder: {"weight_map": {GATE: 1}}), [INDEX]),
    "an empty map": (sharded(lambda index, folder: {"weight_map": {}}), [INDEX]),
    "a shard that is not there": (sharded(remapped(GATE, "c.safetensors")), ["c.safetensors"]),
    "a shard far away": (sharded(remapped(GATE, "../../../nosuch.safetensors")), ["nosuch.safetensors"]),
    "a shard with NUL in its name": (sharded(remapped(GATE, "a\0b")), ["a\\x00b"]),
    "the wrong shard": (sharded(remapped(GATE, "b.safetensors")), [GATE, "b.safetensors", "a.safetensors"]),
    "in no shard": (sharded(remapped("x.weight", "a.safetensors")), ["x.weight", "none of the shards"]),
    "stored twice": (sharded(second=lambda t: t.update({GATE: torch.ones(128, 64)})), [GATE, "stored twice"]),
    "a shard without one": (sharded(second=lambda t: t.pop(K)), [K, "none of the shards"]),
    "NaN in a shard": (sharded(second=lambda t: t[K].fill_(float("nan"))), [K, "not finite"]),
}


def load(folder, cache):
    return sources.load_hf_model(sources.find_source(str(folder)), cache_dir=cache)


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_named(refused, checkpoint, tmp_path, name):
    spoil, named = CASES[name]
    spoil(checkpoint)
    message = refused(load, checkpoint, tmp_path / "cache")
    assert all(word in message for word in named), message
    assert not (checkpoint / "PWNED").exists()


def test_what_is_whole_is_taken(whole, tmp_path):
    """As it is, in shards, and with what transformers itself passes over."""
    import shutil

    want = tiny.hf_model(torch.bfloat16).state_dict()
    rotary = weights(lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}))
    for i, spoil in enumerate((lambda folder: None, sharded(), rotary)):
        folder = shutil.copytree(whole, tmp_path / str(i))
        spoil(folder)
        got = load(folder, tmp_path / "cache").state_dict()
        assert all(torch.equal(got[name], want[name]) for name in want)


def job(folder, tmp_path, **given):
    (tmp_path / "ids.txt").write_text("1, 17, 33, 200, 5")
    settings = {"prompt_ids_file": str(tmp_path / "ids.txt"), "max_new_tokens": 4, "cache_dir": str(tmp_path / "cache")}
    return Job(Settings(str(tiny.FILES / "wrapped_hf.py"), model=str(folder), **settings | given))


def test_a_reference_that_is_not_finite_names_the_module(refused, checkpoint, tmp_path):
    """Every weight is finite: a token of zeros, normed without an epsilon, is not."""
    put("model.embed_tokens.weight", 0.0, (17,))(checkpoint)
    config(rms_norm_eps=0.0)(checkpoint)
    message = refused(lambda: job(checkpoint, tmp_path).reference())
    assert "logits are not finite" in message
    assert "model.layers.0.input_layernorm (LlamaRMSNorm)" in message


def test_a_configuration_that_hf_itself_cannot_run_is_said(refused, checkpoint, tmp_path):
    config(layer_types=["sliding_attention"] * 2)(checkpoint)
    assert "HF itself cannot run" in refused(lambda: job(checkpoint, tmp_path).reference())


def test_the_identity_is_of_the_content(checkpoint, tmp_path):
    """Same size, same times, same names: another reference all the same; also of a shard elsewhere, and the index."""
    sharded()(checkpoint)
    away = tmp_path / "away"
    away.mkdir()
    (checkpoint / "b.safetensors").rename(away / "b.safetensors")
    (checkpoint / "b.safetensors").symlink_to(away / "b.safetensors")

    def identity():
        return sources.find_source(str(checkpoint)).fingerprint(tmp_path / "cache")

    seen = {identity()}
    for path in (checkpoint / "a.safetensors", away / "b.safetensors", checkpoint / INDEX, checkpoint / "config.json"):
        status, data = path.stat(), path.read_bytes()
        path.write_bytes(data[:-1] + b" " if path.suffix == ".json" else data[:-1] + bytes([data[-1] ^ 1]))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        seen.add(identity())
        path.write_bytes(data)
    assert len(seen) == 5
    assert identity() in seen


def test_large_files_are_read_once_and_sampled_then(checkpoint, tmp_path, monkeypatch):
    from bringup.checkpoints import stored

    monkeypatch.setattr(stored, "READ_WHOLE", 0)
    monkeypatch.setattr(stored, "SETTLED_SECONDS", -1)
    read = []
    digest = stored._sha256
    monkeypatch.setattr(stored, "_sha256", lambda path, advance: read.append(path.name) or digest(path, advance))
    source = sources.find_source(str(checkpoint))
    first = source.fingerprint(tmp_path / "cache")
    assert W in read
    read.clear()
    assert source.fingerprint(tmp_path / "cache") == first
    assert not read
    # As a file system would that does not tell: the note says that nothing has changed, and the samples differ.
    monkeypatch.setattr(stored, "_samples", lambda path, size: "other")
    source.fingerprint(tmp_path / "cache")
    assert W in read


@pytest.mark.parametrize("damage", ["half", "empty", "a bit", "another's"])
def test_a_damaged_reference_is_named_and_made_again(whole, tmp_path, capsys, damage):
    first = job(whole, tmp_path).reference()
    entries = sorted((tmp_path / "cache" / "references").glob("*.safetensors"))
    for path in entries:
        data = bytearray(path.read_bytes())
        if damage == "half":
            data = data[: len(data) // 2]
        elif damage == "empty":
            data = b""
        elif damage == "a bit":
            data[-3] ^= 4
        else:
            data = data.replace(b"transformers", b"transformerz", 1)
        path.write_bytes(data)
    capsys.readouterr()
    again = job(whole, tmp_path).reference()
    assert not again.cached
    assert again.tokens == first.tokens
    assert torch.equal(again.logits, first.logits)
    err = capsys.readouterr().err
    assert all(path.name in err for path in entries)
    assert "damaged" in err
    assert job(whole, tmp_path).reference().cached


PATCH = """
import transformers.models.llama.modeling_llama as L
L.apply_rotary_pos_emb = lambda q, k, c, s, *a, **kw: (q, k)
"""
#: Where a file patches, and whether `check` can still hold HF against it.
PLACES = {"import": (PATCH, ""), "build": ("", PATCH), "weights": ("", "\nhf_model.model.norm.weight.data.mul_(2)\n")}


@pytest.mark.parametrize("place", PLACES)
def test_a_model_file_has_no_part_in_the_reference(whole, tmp_path, monkeypatch, place):
    import textwrap

    import transformers.models.llama.modeling_llama as hf

    monkeypatch.setattr(hf, "apply_rotary_pos_emb", hf.apply_rotary_pos_emb)  # is put back after the test
    at_import, in_build = PLACES[place]
    text = (tiny.FILES / "wrapped_hf.py").read_text()
    text = at_import + text.replace("    return Wrapped(", textwrap.indent(in_build, "    ") + "    return Wrapped(")
    (tmp_path / "model.py").write_text(text)
    clean = job(whole, tmp_path / "clean" if (tmp_path / "clean").mkdir() is None else None).reference()
    patched = Job(Settings(**vars(job(whole, tmp_path).settings) | {"model_py": str(tmp_path / "model.py")}))
    found = patched.reference()
    assert not found.cached
    assert torch.equal(found.logits, clean.logits)
    if place == "weights":
        with patched.open_model(keep_hf=True):
            assert torch.equal(patched.hf_model().model.norm.weight.float(), torch.ones(64))
    else:
        from bringup.errors import ModelFailed

        with pytest.raises(ModelFailed, match="changes what HF computes"), patched.open_model(keep_hf=True):
            pass


def test_hf_runs_outside_of_what_it_was_loaded_in(whole, tmp_path):
    """A first question inside inference_mode must not leave weights that HF's mixtures take nowhere else."""
    asked = job(whole, tmp_path)
    with torch.inference_mode():
        asked.hf_model()
    assert not any(p.is_inference() for p in asked.hf_model().parameters())
