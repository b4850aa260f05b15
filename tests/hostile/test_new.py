"""Code from data: what a configuration holds is quoted, whatever it is, and never evaluated."""

import ast
import json
import os

import pytest
from transformers import AutoConfig

from bringup import cli
from bringup.new.literal import literal

MARK = "PWNED"
RUN = f'__import__("os").mkdir("{MARK}")'
CODE = [
    f'x" + str({RUN}) + "',
    f"x' + str({RUN}) + '",
    f'k": 0}}; {RUN}; y = {{"z',
    f'"""\n{RUN}\n"""',
    f"\\N{{DASH}}{RUN}",
]
STRINGS = [
    *(
        "'",
        '"',
        '"""',
        "'''",
        "\\",
        "\\'",
        '\\"',
        "\n",
        "\r\n",
        "\0",
        "{",
        "}",
        "#",
        "%s",
        "${x}",
        "nan",
        "None",
        "",
        " ",
    ),
    *("{{ 7 * 7 }}", "{% for x in y %}", "{# x #}", "{{ config.__class__.__mro__ }}"),
    "{{ cycler.__init__.__globals__.os.mkdir('PWNED') }}",
    *("\u202e", "\u2066x\u2069", "\u200b", "\ufeff", "\ud83d\ude00", "\U0001f600", "\x1b[31m", "é", "x" * 300),
    *CODE,
]
VALUES = [
    *(*STRINGS, None, True, False, 0, -1, 10**30, 0.1, 1e300, float("inf"), float("-inf")),
    *([], {}, (), [[]], (1,), {"a": {}}, list(range(100)), {f"k{i}": [i] * 30 for i in range(5)}),
    *(STRINGS, {s: s for s in STRINGS}, {"a": tuple(STRINGS)}),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: ascii(v)[:30])
def test_literals_are_the_value_and_nothing_else(value):
    source = literal(value, 4)
    tree = ast.parse(f"x = {source}")
    allowed = (ast.Module, ast.Assign, ast.Name, ast.Store, ast.Load, ast.Constant, ast.List, ast.Tuple, ast.Dict)
    allowed += (ast.UnaryOp, ast.USub, ast.Call)
    nodes = list(ast.walk(tree))
    assert all(isinstance(node, allowed) for node in nodes)
    assert all(node.func.id == "float" for node in nodes if isinstance(node, ast.Call))
    assert source.isascii()
    assert source.isprintable() or "\n" in source
    found = {}
    exec(f"x = {source}", found)
    assert found["x"] == value
    assert type(found["x"]) is type(value)


def test_nan_has_a_literal_and_objects_have_none():
    assert literal(float("nan")) == 'float("nan")'
    for value in (object(), {1, 2}, b"x", lambda: 0, {"a": [object()]}):
        with pytest.raises(TypeError, match="no plain data"):
            literal(value)


SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8,
         "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 512, "max_position_embeddings": 512}  # fmt: skip


def run_new(folder, fields):
    (folder / "c").mkdir()
    (folder / "c" / "config.json").write_text(json.dumps(fields))
    return cli.main(["new", str(folder / "c"), "--id", "org/name", "--out", str(folder / "out")])


def test_keys_and_values_of_a_configuration_are_not_run(tmp_path, monkeypatch, capsys):
    """Every text, as the value of a field that is kept, as a key, in a nested object and in a list; all at once."""
    monkeypatch.chdir(tmp_path)
    config = AutoConfig.for_model("qwen3", **SIZES).to_dict()
    odd = {f"field{i}": s for i, s in enumerate(STRINGS)} | {s: i for i, s in enumerate(STRINGS)}
    odd |= {"nested": {s: [s, {s: s}] for s in STRINGS}, "architectures": STRINGS, "torch_dtype": "bfloat16"}
    odd["rope_parameters"] = config["rope_parameters"] | {s: s for s in STRINGS}
    code = run_new(tmp_path, odd | {k: v for k, v in config.items() if k not in odd})
    written = list((tmp_path / "out").rglob("*.py"))
    assert code in (0, 2), capsys.readouterr().err
    assert (code == 0) == bool(written)
    for path in written:
        text = path.read_text()
        assert text.isascii()
        ast.parse(text)
        if path.name.startswith("test_"):  # its data is data: one assignment, no calls
            (small,) = [n for n in ast.parse(text).body if isinstance(n, ast.Assign) and n.targets[0].id == "SMALL"]
            ast.literal_eval(small.value)
        exec(compile(text, str(path), "exec"), {"__file__": str(path), "__name__": "tried"})
    assert not (tmp_path / MARK).exists()
    assert MARK not in os.listdir()


@pytest.mark.parametrize(
    "field", ["model_type", "hidden_act", "mlp_bias", "rope_scaling", "_name_or_path", "torch_dtype"]
)
@pytest.mark.parametrize("text", [*CODE[:4], "\u202e", "{{ 7 * 7 }}"], ids=lambda t: ascii(t)[:12])
def test_fields_that_are_written_are_not_run(tmp_path, monkeypatch, refused, field, text):
    monkeypatch.chdir(tmp_path)
    value = {"rope_type": text, "factor": 2.0} if field == "rope_scaling" else text
    fields = {"model_type": "qwen3", **SIZES, field: value}
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text(json.dumps(fields))
    if field == "_name_or_path":
        refused("new", tmp_path / "c", "--out", tmp_path / "out")
    else:
        code = cli.main(["new", str(tmp_path / "c"), "--id", "org/name", "--out", str(tmp_path / "out")])
        assert code == (0 if field == "mlp_bias" and (tmp_path / "out").exists() else 2)
        for path in (tmp_path / "out").rglob("*.py"):
            exec(compile(path.read_text(), str(path), "exec"), {"__file__": str(path), "__name__": "tried"})
    assert not (tmp_path / MARK).exists()


def test_nothing_is_left_behind(tmp_path, refused, monkeypatch):
    """Refused for what no block covers, for memory, for a full disk, for a file that fails: no folder, no file."""
    from bringup import files
    from bringup.errors import ModelFailed
    from bringup.new import facts

    fields = {"model_type": "qwen3", **SIZES, "head_dim": 32}
    (tmp_path / "c").mkdir()
    quantised = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (tmp_path / "c" / "config.json").write_text(json.dumps(fields | quantised))
    words = ["new", tmp_path / "c", "--id", "org/name", "--out", tmp_path / "out"]
    assert "quant_method gptq" in refused(*words)
    assert not (tmp_path / "out").exists()
    (tmp_path / "c" / "config.json").write_text(json.dumps(fields))
    with monkeypatch.context() as patch:
        patch.setattr(facts, "run_by_shapes", lambda *_: (_ for _ in ()).throw(ModelFailed("it fails")))
        refused(*words, code=1)
    assert not (tmp_path / "out").exists()
    written = files.write
    with monkeypatch.context() as patch:

        def full(path, content):
            if "test_" in str(path):
                raise files.BadInput(f"cannot write {path}")
            return written(path, content)

        patch.setattr(files, "write", full)
        refused(*words)
    assert not (tmp_path / "out").exists()
