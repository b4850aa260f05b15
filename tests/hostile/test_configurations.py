"""A config.json with values that no model has: refused by the name of the field, before anything is built from it."""

import json

import pytest

from bringup.checkpoints import configuration, sources
from bringup.new import covered

INF, NAN = float("inf"), float("nan")
#: Fields, and what the refusal names; None where any words will do, since transformers' own classes refuse first.
FIELDS = [
    *[({size: value}, size) for size in configuration.SIZES for value in (0, -1, 10**12, 1.5, "64", True, NAN)],
    *[({"rms_norm_eps": value}, "rms_norm_eps") for value in (NAN, INF, -1e-5, "x", [], 2, True)],
    *[({"torch_dtype": value}, "dtype") for value in (7, "float8_e4m3fn", "int8", "os.system", [], {})],
    *[({"dtype": value}, "dtype") for value in ("complex64", "float4", 3.5)],
    *[({"_attn_implementation": value}, "attn_implementation") for value in ("evil/kernel", "a/b@main:c", 1, ["sdpa"])],
    ({"attn_implementation": "evil/kernel"}, "attn_implementation"),
    ({"_attn_implementation_internal": "evil/kernel"}, "attn_implementation"),
    ({"_attn_implementation": {"": "sdpa", "text_config": "evil/kernel"}}, "attn_implementation"),
    ({"_experts_implementation": "evil/kernel"}, "experts_implementation"),
    *[({"rope_theta": value}, "rope_theta") for value in ("x", NAN, INF, 0, -1.0)],
    *[({"rope_scaling": value}, "rope_scaling") for value in ("linear", 2, ["linear"])],
    *[({"rope_scaling": {"rope_type": value}}, "rope_type") for value in (["x"], 7, {"a": 1})],
    *[({"rope_scaling": {"rope_type": "linear", "factor": value}}, "factor") for value in (NAN, INF, 0, -2.0, "x")],
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": NAN}}, "low_freq_factor"),
    ({"rope_parameters": {"rope_theta": "x", "rope_type": "default"}}, "rope_theta"),
    ({"rope_parameters": {"sliding_attention": {"rope_theta": NAN}}}, "rope_theta"),
    *[({"model_type": value}, "model_type") for value in ("nosuch", 7, None, [], "llama\x1b[31m", "\u202ellama", "")],
    ({"num_attention_heads": 5, "num_key_value_heads": 3}, "equal groups"),
    ({"num_key_value_heads": 8}, "equal groups"),
    ({"hidden_size": 63}, None),
    ({"text_config": {"rms_norm_eps": NAN}}, "text_config.rms_norm_eps"),
    ({"text_config": {"hidden_size": -1}}, "text_config.hidden_size"),
    ({"attention_bias": "yes"}, None),
    ({"initializer_range": NAN}, "initializer_range"),
]
TOKENS = [
    *[({"eos_token_id": value}, "eos_token_id") for value in (99999, -1, "x", 1.5, [1, 99999], [True], {"a": 1})],
    *[({"pad_token_id": value}, "pad_token_id") for value in (99999, -99999, "x")],
    ({"bos_token_id": 256}, "bos_token_id"),
]
TEXTS = {
    "deep objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "deep lists": "[" * 100_000 + "]" * 100_000,
    "a list": "[1]",
    "a number": "1",
    "nothing": "",
    "spaces": "   \n",
    "half": '{"model_type": "llama", ',
    "no JSON": "model_type: llama",
    "Python": "{'model_type': 'llama'}",
    "a long number": '{"model_type": "llama", "hidden_size": 1' + "0" * 5000 + "}",
    "not UTF-8": b'{"model_type": "llama", "x": "\xff"}',
    "UTF-16": '{"model_type": "llama"}'.encode("utf-16"),
    "NUL": b"\0" * 100,
    "LFS pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "no model_type": '{"hidden_size": 64}',
    "large": b" " * (17 << 20),
}


def spoil(checkpoint, change):
    file = checkpoint / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    return file


@pytest.mark.parametrize(("change", "named"), FIELDS, ids=[ascii(f)[:70] for f, _ in FIELDS])
def test_fields(refused, checkpoint, change, named):
    message = refused(configuration.read, spoil(checkpoint, change))
    assert named is None or named in message


@pytest.mark.parametrize(("change", "named"), TOKENS, ids=[ascii(f)[:70] for f, _ in TOKENS])
def test_tokens_outside_the_vocabulary(refused, checkpoint, change, named):
    spoil(checkpoint, change)
    message = refused(lambda: sources.load_config(sources.find_source(str(checkpoint))))
    assert named in message


@pytest.mark.parametrize("name", TEXTS)
def test_texts(refused, checkpoint, name):
    text = TEXTS[name]
    file = checkpoint / "config.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "config.json" in refused("plan", file)


def test_what_is_no_file(refused, checkpoint, tmp_path):
    import os

    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    (checkpoint / "config.json").unlink()
    (checkpoint / "config.json").mkdir()
    for path in ("/dev/zero", tmp_path / "pipe", checkpoint, checkpoint / "config.json"):
        refused("plan", path)
    refused("plan", tmp_path / "loop")


def test_absurd_sizes_do_not_build_for_ever(refused, checkpoint):
    """Each within its bound, together larger than any machine: shapes alone are counted, and nothing fits."""
    spoil(checkpoint, {"vocab_size": 1 << 24, "hidden_size": 1 << 14, "head_dim": 128, "intermediate_size": 1 << 16})
    assert "does not fit" in refused("new", checkpoint, "--id", "a/b", "--out", checkpoint / "out")
    assert not (checkpoint / "out").exists()


DEFAULTS = [
    "bamba",
    "falcon_h1",
    "falcon",
    "falcon_mamba",
    "mamba",
    "gemma3n_text",
    "dots3_note_text",
    "jamba",
    "rwkv",
    "t5",
]


@pytest.mark.parametrize("kind", DEFAULTS)
def test_default_configurations_of_other_kinds(refused, tmp_path, kind):
    from transformers import CONFIG_MAPPING

    if kind not in CONFIG_MAPPING:
        pytest.skip("not in this transformers")
    CONFIG_MAPPING[kind]().save_pretrained(tmp_path / "c")
    message = refused("new", tmp_path / "c", "--id", "a/b", "--out", tmp_path / "out")
    assert "needed: " in message
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_every_causal_model_of_transformers_is_looked_at():
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        try:
            config = CONFIG_MAPPING[kind]()
        except Exception:  # some have no defaults
            continue
        covered.gaps(config)  # and raises nothing
