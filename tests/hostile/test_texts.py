"""Prompts, token ids and tokenizers that are not what they should be; texts of any size in bounded memory."""

import json
import os
import tracemalloc

import pytest

from bringup.evaluation import texts
from bringup.evaluation.run import Job, Settings
from tests.evaluation import tiny

IDS = {
    "": "empty",
    "   \n": "empty",
    "1 2 x": "invalid literal",
    "1.5": "invalid literal",
    "[1, [2]]": "invalid literal",
    "256": "outside the vocabulary",
    "-1": "outside the vocabulary",
    "9" * 5000: "too long|invalid literal|limit",
    "1 " * 513: "do not fit|no positions",
    "1 " * 10**6: "too long",
    b"\xff\xfe\x00": "cannot read the prompt",
    "{}": "invalid literal",
    "true": "invalid literal",
}
TOKENIZERS = {
    "empty": {"tokenizer.json": ""},
    "no JSON": {"tokenizer.json": "{"},
    "a list": {"tokenizer.json": "[]"},
    "deep": {"tokenizer.json": '{"a":' * 50_000 + "1" + "}" * 50_000},
    "without a model": {"tokenizer.json": '{"version": "1.0"}'},
    "LFS pointer": {"tokenizer.json": "version https://git-lfs.github.com/spec/v1\n"},
    "remote code": {
        "tokenizer_config.json": '{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}}',
        "evil.py": "1 / 0",
    },
    "a class that is none": {"tokenizer_config.json": '{"tokenizer_class": "os.system"}'},
    "a model that is none": {"tokenizer.model": "x"},
    "a config that is a list": {"tokenizer_config.json": "[1]"},
}


def job(folder, tmp_path, **given):
    settings = {"max_new_tokens": 2, "cache_dir": str(tmp_path / "cache")} | given
    return Job(Settings(str(tiny.FILES / "wrapped_hf.py"), model=str(folder), **settings))


@pytest.mark.parametrize("text", IDS, ids=lambda t: ascii(t)[:30])
def test_ids(refused, whole, tmp_path, text):
    import re

    file = tmp_path / "ids.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = refused(lambda: job(whole, tmp_path, prompt_ids_file=str(file)))
    assert re.search(IDS[text], message), message


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers(refused, checkpoint, tmp_path, name):
    for file, text in TOKENIZERS[name].items():
        (checkpoint / file).write_text(text)
    message = refused(lambda: job(checkpoint, tmp_path, prompt="a text"))
    assert "checkpoint" in message


def words(vocabulary):
    """A tokenizer of as many words: w0 w1 w2 ..."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def test_a_tokenizer_of_another_model(refused, checkpoint, tmp_path):
    words(400).save_pretrained(checkpoint)
    assert job(checkpoint, tmp_path, prompt="w1 w255").prompt_ids == [1, 255]
    message = refused(lambda: job(checkpoint, tmp_path, prompt="w1 w399"))
    assert "outside the vocabulary" in message
    assert "399" in message
    (tmp_path / "text.txt").write_text("w1 w2 w300 w4 " * 20)
    assert "300" in refused(lambda: job(checkpoint, tmp_path, text_file=str(tmp_path / "text.txt")))


@pytest.mark.parametrize("path", ["/nowhere/a.txt", "/proc/self/mem", ".", "/dev/null", "a\0b", "x" * 5000, "\udcff"])
def test_files_that_cannot_be_read(refused, checkpoint, tmp_path, path):
    words(256).save_pretrained(checkpoint)
    for option in ("prompt_file", "prompt_ids_file", "text_file"):
        refused(lambda option=option: job(checkpoint, tmp_path, **{option: path}))


def test_texts_of_any_size_take_little_memory(refused, checkpoint, tmp_path):
    words(256).save_pretrained(checkpoint)
    huge = tmp_path / "huge.txt"
    huge.write_text("w1 ")
    os.truncate(huge, 1 << 36)  # 64 GiB of zeros that take no disk
    for file in (huge, "/dev/zero"):
        tracemalloc.start()
        message = refused(lambda file=file: job(checkpoint, tmp_path, prompt_file=str(file)))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
        tracemalloc.stop()
        assert "too long" in message
    long = tmp_path / "long.txt"
    long.write_text("w1 w2 w3 " * 10**6)
    given = job(checkpoint, tmp_path, text_file=str(long))
    assert (len(given.prompt_ids), len(given.given_tokens)) == (texts.GIVEN_PROMPT_TOKENS, 2)


CONTROL = "\x1b]0;title\x07\x1b[31mred\u202e\u2066\x00\r\n\t"


def test_control_characters_of_a_checkpoint_do_not_reach_the_terminal(capsys):
    """What a tokenizer decodes goes to the terminal as it comes, but for what would steer it."""
    from bringup.evaluation.generation import Streamer

    class Decodes:
        def decode(self, ids, skip_special_tokens=True):
            return CONTROL * len(ids)

    streamer = Streamer(Decodes())
    streamer.put([[1]])
    streamer.put(2)
    streamer.end()
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x07\u202e\u2066\x00\r")
    assert "red" in out


def test_markup_is_text(capsys):
    """Refusals go to a terminal through rich: brackets are not its markup, names of emoji not emoji."""
    from bringup.console import screen

    for text in ("want [batch, heads] got [/nosuch]", "[bold]x[/bold]", ":smile:", "[link=evil]"):
        screen(200).print(text)
        assert capsys.readouterr().out == text + "\n"


def test_every_console_is_that_one():
    import re

    from bringup.files import PACKAGES

    for path in (PACKAGES / "bringup").rglob("*.py"):
        made = re.findall(r"(?<![\w.])Console\(", path.read_text())
        assert len(made) == (path.name == "console.py"), path


def test_names_in_json_are_data(tmp_path):
    from bringup import files

    files.write_json(tmp_path / "a.json", {CONTROL: [CONTROL, float("nan"), float("inf"), "\udcff"]})
    assert json.loads((tmp_path / "a.json").read_text()) == {CONTROL: [CONTROL, None, None, "\udcff"]}
