"""What goes into the models: a prompt that they continue themselves, or a given text that they are led through."""

from bringup.checkpoints import random_weights
from bringup.errors import BadInput
from bringup.files import PROJECT, located

DEFAULT_PROMPT = PROJECT / "prompts" / "long.txt"
RANDOM_PROMPT_TOKENS = 100
GIVEN_PROMPT_TOKENS = 128  # of a given text, at most, before the first token that is compared


def prompt_ids(settings, config, source, tokenizer):
    """The prompt that the settings mean as token ids: a text, a file, ids, or random ids for want of a tokenizer."""
    s, given = settings, check_one(settings)
    if s.prompt_ids_file is not None:
        text = _read(s.prompt_ids_file).replace(",", " ").strip().strip("[]")
        try:
            ids = [int(word) for word in text.split()]
        except ValueError as error:
            raise BadInput(f"{s.prompt_ids_file}: {error}", want="token ids, as in 1 2 3 or [1, 2, 3]") from error
        if bad := [i for i in ids if not 0 <= i < config.vocab_size]:
            raise BadInput("token ids outside the vocabulary", got=bad[:5], want=f"0 to {config.vocab_size - 1}")
    elif tokenizer is None:
        if given or s.chat:
            name = given[0] if given else "chat"
            raise BadInput(f"{source.name} has no tokenizer for --{name}", hint="--prompt_ids_file")
        ids = random_weights.prompt_ids(config, s.prompt_tokens or RANDOM_PROMPT_TOKENS, s.seed)
    else:
        text = s.prompt if s.prompt is not None else _read(s.prompt_file or DEFAULT_PROMPT).strip()
        ids = chat_ids(text, tokenizer, source) if s.chat else tokenizer(text)["input_ids"] if text else []
    if not ids:
        raise BadInput("the prompt is empty")
    if s.prompt_tokens is not None:
        ids = (ids * (s.prompt_tokens // len(ids) + 1))[: s.prompt_tokens]
    return ids


def chat_ids(text, tokenizer, source):
    """A user's message in the checkpoint's chat template, up to where the answer begins, as token ids.

    transformers renders it, in its own sandbox.
    """
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        raise BadInput(
            f"{source.name} has no chat template: it was not made for --chat",
            hint="leave --chat out; or the checkpoint of the model's instruct version",
        )
    message = [{"role": "user", "content": text}]
    try:
        return tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    except (TemplateError, TypeError, ValueError) as error:
        raise BadInput(f"the chat template of {source.name} fails: {error}") from error


def check_one(settings):
    """The names of the prompt that was given, one at most."""
    given = [n for n in ("prompt", "prompt_file", "prompt_ids_file", "text_file") if getattr(settings, n) is not None]
    if len(given) > 1:
        raise BadInput("one prompt, please", got=" and ".join("--" + n for n in given))
    if settings.chat and given and given[0] in ("prompt_ids_file", "text_file"):
        raise BadInput("--chat is for a prompt that is text", got=f"--{given[0]}", want="--prompt or --prompt_file")
    return given


def given_text(path, tokenizer, new_tokens, prompt_tokens=None, longest=None):
    """A text as (prompt ids, the tokens that follow): at most `new_tokens` of them, `longest` of both together.

    The prompt is the first `prompt_tokens`; by default half of what there is, at most GIVEN_PROMPT_TOKENS.
    """
    if tokenizer is None:
        raise BadInput(f"no tokenizer for the text {path}", hint="a checkpoint with a tokenizer")
    text = _read(path).strip()
    ids = (tokenizer(text)["input_ids"] if text else [])[:longest]
    start = prompt_tokens or min(GIVEN_PROMPT_TOKENS, len(ids) // 2)
    if not 0 < start < len(ids):
        raise BadInput(
            "the text is too short",
            got=f"{len(ids)} tokens in {path}",
            want=f"more than the {max(start, 1)} of its prompt",
        )
    return ids[:start], ids[start : start + new_tokens]


def _read(path):
    try:
        return located(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the prompt: {error}") from error
