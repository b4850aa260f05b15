"""What goes into the models: a prompt that they continue themselves, or a given text that they are led through."""

from bringup.checkpoints import random_weights
from bringup.errors import BadInput, shown
from bringup.evaluation.chat import chat_ids
from bringup.files import PROJECT, located

DEFAULT_PROMPT = PROJECT / "prompts" / "long.txt"
RANDOM_PROMPT_TOKENS = 100
BYTES_PER_TOKEN = 64  # more than a text has on average in any vocabulary: a few, and up to 30 of code or spaces
LARGEST = 1 << 22  # tokens of a prompt
GIVEN_PROMPT_TOKENS = 128  # of a given text, at most, before the first token that is compared


def prompt_ids(settings, config, source, tokenizer):
    """The prompt that the settings mean as token ids: a text, a file, ids, or random ids for want of a tokenizer."""
    s, given = settings, check_one(settings)
    if s.prompt_ids_file is not None:
        text = _read(s.prompt_ids_file, config.max_position_embeddings).replace(",", " ").strip().strip("[]")
        try:
            ids = [int(word) for word in text.split()]
        except ValueError as error:
            raise BadInput(f"{s.prompt_ids_file}: {error}", want="token ids, as in 1 2 3 or [1, 2, 3]") from error
    elif tokenizer is None:
        if given or s.chat:
            name = given[0] if given else "chat"
            raise BadInput(f"{source.name} has no tokenizer for --{name}", hint="--prompt_ids_file")
        ids = random_weights.prompt_ids(config, s.prompt_tokens or RANDOM_PROMPT_TOKENS, s.seed)
    else:
        text = s.prompt
        if text is None:
            text = _read(s.prompt_file or DEFAULT_PROMPT, config.max_position_embeddings).strip()
        ids = chat_ids(text, tokenizer, source) if s.chat else _tokens(tokenizer, text)
    if not ids:
        raise BadInput("the prompt is empty")
    check_ids(ids, config)
    if s.prompt_tokens is not None:
        ids = (ids * (s.prompt_tokens // len(ids) + 1))[: s.prompt_tokens]
    return ids


def check_ids(ids, config):
    """Refuses ids, of a file or of a tokenizer that is another model's, that the vocabulary does not have."""
    if bad := [i for i in ids if not 0 <= i < config.vocab_size]:
        raise BadInput("token ids outside the vocabulary", got=bad[:5], want=f"0 to {config.vocab_size - 1}")


def check_one(settings):
    """The names of the prompt that was given, one at most."""
    given = [n for n in ("prompt", "prompt_file", "prompt_ids_file", "text_file") if getattr(settings, n) is not None]
    if len(given) > 1:
        raise BadInput("one prompt, please", got=" and ".join("--" + n for n in given))
    if settings.chat and given and given[0] in ("prompt_ids_file", "text_file"):
        raise BadInput("--chat is for a prompt that is text", got=f"--{given[0]}", want="--prompt or --prompt_file")
    return given


def given_text(path, tokenizer, new_tokens, prompt_tokens=None, longest=None, config=None):
    """A text as (prompt ids, the tokens that follow): at most `new_tokens` of them, `longest` of both together.

    The prompt is the first `prompt_tokens`; by default half of what there is, at most GIVEN_PROMPT_TOKENS.
    """
    if tokenizer is None:
        raise BadInput(f"no tokenizer for the text {path}", hint="a checkpoint with a tokenizer")
    wanted = min(longest or LARGEST, (prompt_tokens or GIVEN_PROMPT_TOKENS) + new_tokens)
    text = _read(path, wanted, cut=True).strip()
    ids = _tokens(tokenizer, text)[:longest]
    if config is not None:
        check_ids(ids, config)
    start = prompt_tokens or min(GIVEN_PROMPT_TOKENS, len(ids) // 2)
    if not 0 < start < len(ids):
        raise BadInput(
            "the text is too short",
            got=f"{len(ids)} tokens in {path}",
            want=f"more than the {max(start, 1)} of its prompt",
        )
    return ids[:start], ids[start : start + new_tokens]


def _tokens(tokenizer, text):
    try:
        return list(tokenizer(text)["input_ids"]) if text else []
    except Exception as error:  # a broken tokenizer raises whatever its parts do
        raise BadInput(f"the checkpoint's tokenizer cannot read the prompt: {type(error).__name__}: {error}") from error


def _read(path, tokens, cut=False):
    """The text of a file of at most `tokens` tokens: what is certainly longer is refused, or cut, before it is read."""
    most = min(tokens, LARGEST) * BYTES_PER_TOKEN + 4096
    try:
        with located(path).open("rb") as stream:
            data = stream.read(most + 1)
        if len(data) > most and not cut:
            raise BadInput(
                "the prompt is too long",
                got=f"more than {most} bytes in {shown(path)}",
                want=f"at most {tokens} tokens",
            )
        return data[:most].decode("utf-8", "strict" if len(data) <= most else "ignore")
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read the prompt: {error}") from error
