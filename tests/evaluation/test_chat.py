"""--chat: a prompt as a user's message in the checkpoint's own template, and what is said where there is none."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from bringup.errors import BadInput
from bringup.evaluation import chat
from bringup.evaluation.run import Job, Settings

ROOT = Path(__file__).parents[2]
MODEL_PY, TINY = ROOT / "models/meta-llama/Llama-3.2-1B/n150/functional/model.py", ROOT / "checkpoints/tiny-llama"
TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def checkpoint(folder, template):
    """A checkpoint with this chat template and no weights, which a prompt does not need."""
    for path in TINY.iterdir():
        if path.suffix == ".json":
            shutil.copy(path, folder / path.name)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": template}))
    (folder / "model.safetensors").symlink_to(TINY / "model.safetensors")
    return folder


def job(model, **settings):
    return Job(Settings(model_py=str(MODEL_PY), model=str(model), chat=True, **settings))


def test_a_message_in_the_template(tmp_path):
    made = job(checkpoint(tmp_path, TEMPLATE), prompt="Name a tool")
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    assert made.prompt_ids == tokenizer("[user] Name a tool\n[assistant]", add_special_tokens=False)["input_ids"]
    assert "in the chat template" in made.describe()
    assert "--chat" in made.command()


REFUSED = {
    "no template": (None, {}, "has no chat template"),
    "a template that refuses": ("{{ raise_exception('only system messages') }}", {}, "fails: only system messages"),
    "a template that reaches out": ("{{ messages.__class__.__mro__ }}", {}, "fails: access to attribute '__class__'"),
    "a broken template": ("{% for m in messages %}", {}, "chat template of .* fails"),
    "loops in loops": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        {},
        "fails: it does not end in 1 s",
    ),
    "a text that doubles": (
        "{% set s = namespace(t='ab') %}{% for i in range(64) %}{% set s.t = s.t ~ s.t %}{% endfor %}",
        {},
        "fails: it (takes more than 512 MiB|does not end in 1 s)",
    ),
    "a text of any length": ("{{ 'a' * 10 ** 12 }}", {}, "fails: it takes more than 512 MiB"),
    "no end to itself": (
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        {},
        "fails: maximum recursion depth exceeded",
    ),
    "token ids": (TEMPLATE, {"prompt_ids_file": "ids.txt"}, "--chat is for a prompt that is text"),
    "a given text": (TEMPLATE, {"text_file": "text.txt"}, "--chat is for a prompt that is text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case, tmp_path, monkeypatch):
    template, settings, words = REFUSED[case]
    if "does not end" in words:
        monkeypatch.setattr(chat, "SECONDS", 1)
    with pytest.raises(BadInput, match=words):
        job(checkpoint(tmp_path, template), **(settings or {"prompt": "Name a tool"}))
