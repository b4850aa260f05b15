"""Configurations and ids that cannot be used are refused in a few words, and nothing is written."""

import json
import re

import pytest

from bringup import cli
from bringup.checkpoints import configuration
from bringup.errors import BadInput

SMALL = {
    "model_type": "llama", "hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 1024,
    "num_hidden_layers": 2, "intermediate_size": 512,
}  # fmt: skip


@pytest.fixture
def config_json(tmp_path, monkeypatch):
    """Writes fields (or a text) to config.json in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def write(fields):
        path = tmp_path / "config.json"
        path.write_text(fields if isinstance(fields, str) else json.dumps(fields))
        return path

    return write


def test_a_configuration_that_can_be_used(config_json):
    config, hf_id, flag = configuration.find(config_json(SMALL), "org/name")
    assert (config.hidden_size, hf_id, flag) == (256, "org/name", " --model .")


REFUSED = {
    "broken": ("{bad", "config.json is not valid JSON\n  got .*line 1 column 2"),
    "a list": ("[1]", "config.json is no HF configuration"),
    "no type": ({}, "config.json has no model_type"),
    "text for a number": (SMALL | {"hidden_size": "many"}, "hidden_size = 'many'\n  want   a whole number"),
    "7 heads": (SMALL | {"num_attention_heads": 7, "num_key_value_heads": 7}, r"hidden size \(256\) is not a multiple"),
    "no heads": (SMALL | {"num_attention_heads": 0}, "num_attention_heads = 0\n  want   a whole number, at least 1"),
    "no layers": (SMALL | {"num_hidden_layers": 0}, "num_hidden_layers = 0"),
    "uneven groups": (SMALL | {"num_key_value_heads": 3}, "num_attention_heads = 8, num_key_value_heads = 3"),
    "no such dtype": (SMALL | {"dtype": "floaty"}, "dtype = 'floaty'\n  want   one of float32"),
    "no factor": (SMALL | {"rope_scaling": {"rope_type": "linear"}}, "got    Missing required keys .*factor"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_configuration_that_cannot_be_used_is_refused_by_name(config_json, case):
    fields, said = REFUSED[case]
    with pytest.raises(BadInput, match=said) as refused:
        configuration.find(config_json(fields), "org/name")
    assert "config.json" in str(refused.value)


def test_an_unknown_type_gets_no_advice_to_install(config_json):
    with pytest.raises(BadInput, match="does not know model_type 'frobnicate'") as refused:
        configuration.read(config_json(SMALL | {"model_type": "frobnicate"}))
    assert re.search(r"covered are .*\bllama, mistral\b.*qwen3", str(refused.value))
    assert "install" not in str(refused.value)


@pytest.mark.parametrize("value", ["hidden_act", "rope_parameters"])
def test_a_value_that_hfs_model_does_not_know_is_named(config_json, capsys, value):
    fields = SMALL | {"hidden_act": "nope"} if value == "hidden_act" else SMALL | {value: {"rope_type": "nope"}}
    assert cli.main(["new", str(config_json(fields)), "--id", "org/name"]) == 2
    assert "a configuration that HF's model takes; it raised KeyError: 'nope'" in capsys.readouterr().err


OUTSIDE = [
    "metiny2",
    "../../x/y",
    "../x",
    "x/..",
    ".x/y",
    "x/.y",
    "a/b/c",
    "/x/y",
    "a/b..c",
    "a/b--c",
    "a b/c",
    "a/",
    " ",
]


@pytest.mark.parametrize("hf_id", OUTSIDE)
def test_an_id_that_the_hub_would_not_have_is_refused(config_json, tmp_path, capsys, hf_id):
    path = config_json(SMALL)
    try:
        code = cli.main(["new", str(path), "--id", hf_id])
    except SystemExit as stop:  # nothing at all is no value of an option
        code = stop.code
    assert code == 2
    assert re.search("want   ORG/NAME|--id: it is empty", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("hf_id", ["Qwen/Qwen3-0.6B", "org_1/a.b-c_d"])
def test_ids_of_the_hub(hf_id):
    assert configuration.is_id(hf_id)


@pytest.mark.parametrize("stated", [None, 3, "../x", "../../x/y", "./name", "org/name"])
def test_the_id_that_a_configuration_states(config_json, stated):
    path = config_json(SMALL | {"_name_or_path": stated})
    if stated == "org/name":
        assert configuration.find(path)[1] == stated
        return
    with pytest.raises(BadInput, match="does not say .*_name_or_path.*\n  want   --id ORG/NAME"):
        configuration.find(path)


def test_the_help_says_when_an_id_is_needed(capsys):
    with pytest.raises(SystemExit):
        cli.main(["new", "--help"])
    assert "needed where a directory or config.json does not say it" in " ".join(capsys.readouterr().out.split())


def test_the_cache_is_in_users_and_positions(config_json, capsys):
    assert cli.main(["new", str(config_json(SMALL)), "--id", "org/name"]) == 0
    assert "weights in bfloat16, a cache of 32 users x 1024 positions\n" in capsys.readouterr().out
