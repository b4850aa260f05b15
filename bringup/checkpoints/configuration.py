"""The HF configuration that a command is given, and which model it is of."""

import json
import math
import re
import shlex
from pathlib import Path

from bringup.arguments import LARGEST
from bringup.checkpoints import gguf, hub, known
from bringup.errors import BadInput, shown
from bringup.files import located

WANT_ID = "ORG/NAME as on the hub: letters, digits, '.', '-' and '_'; no '..' or '--', no '.' or '-' first or last"
#: Sizes, and what no model comes near: transformers takes any, and then builds without end.
SIZES = {
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
    "num_hidden_layers": 512,
    "num_attention_heads": 1 << 14,
    "num_key_value_heads": 1 << 14,
    "head_dim": 1 << 14,
    "vocab_size": 1 << 24,
    "max_position_embeddings": LARGEST,
}
LARGEST_FILE = 16 << 20  # bytes of a configuration or an index
DTYPES = ("float32", "float16", "bfloat16", "float64", "auto")
#: Attention of transformers itself; another name is code that it fetches from the hub.
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


def find(model, hf_id=None):
    """(HF configuration, id, what a command needs to find the model: " --model ..." or nothing)."""
    if hf_id is not None and not is_id(hf_id):
        raise BadInput("--id is no HF id", got=hf_id, want=WANT_ID)
    path = located(model)
    if path.exists():
        file = config_file(path)
        hf_id = hf_id or _stated_id(file)
        return read(path), hf_id, f" --model {shlex.quote(shown(gguf.find(path) or file.parent))}"
    if not is_id(model):
        want = "an HF id org/name, a checkpoint directory, a GGUF file or a config.json"
        raise BadInput("no such configuration", got=model, want=want)
    if model in known.known_ids():
        return known.known_config(model), hf_id or model, ""
    return _from_hub(model), hf_id or model, ""


def is_id(text):
    """Is it org/name as the hub has them? Then it is also a folder below models/ and nowhere else."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return re.fullmatch(r"[\w.-]+/[\w.-]+", text, re.ASCII) is not None


def config_file(path):
    """The config.json that a path means, itself or of its directory; of a GGUF file the one beside it, or itself."""
    path = Path(path)
    if file := gguf.find(path):
        return gguf.config_beside(file) or file
    if path.is_dir() and not (path / "config.json").is_file():
        raise BadInput(
            "not a checkpoint directory", got=shown(path), want="a directory with config.json, or with one GGUF file"
        )
    return path / "config.json" if path.is_dir() else path


def read(path):
    """The HF configuration of a checkpoint directory or a config.json; `BadInput` says what is wrong with it."""
    from transformers import AutoConfig

    file = config_file(path)
    given = fields(file)
    if gguf.find(file):
        return _made(given, shown(file), lambda: AutoConfig.for_model(**given))
    return _made(given, shown(file), lambda: AutoConfig.from_pretrained(file, trust_remote_code=False))


def _made(given, name, make):
    """The configuration of these fields, judged before and after transformers made it."""
    _known_type(given, name)
    _check(given, name)
    try:
        config = make()
        made = config.to_dict()
    except Exception as error:  # its classes raise whatever their arithmetic does on values that they cannot take
        raise BadInput(f"cannot use the configuration {name}", got=_reason(error)) from error
    _check(made, name)
    return config


def _from_hub(model):
    """The configuration of an id, from the HF cache or the hub."""
    from transformers import AutoConfig, PretrainedConfig

    try:
        hub.require_hub()
    except OSError as error:
        local, unreached = {"local_files_only": True}, str(error)
    else:
        local, unreached = {}, ""
    try:
        fields, _ = PretrainedConfig.get_config_dict(model, **local)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"cannot get the configuration of {model}: not known here, not in the HF cache, and not from the hub",
            got=unreached or str(error).splitlines()[0],
            hint="give its directory or config.json, with --id " + model + "; known: " + ", ".join(known.known_ids()),
        ) from error
    return _made(fields, model, lambda: AutoConfig.from_pretrained(model, trust_remote_code=False, **local))


def fields(file):
    """The JSON object in a file; of a GGUF file what it would be."""
    file = Path(file)
    if gguf.find(file):
        return gguf.fields(file)
    if file.exists() and not file.is_file():
        raise BadInput(f"{shown(file)} is no file")
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise BadInput(f"{shown(file)} is no configuration", got=f"{file.stat().st_size} bytes")
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {shown(file)}", got=error.strerror) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{shown(file)} is not valid JSON", got=error) from error
    if not isinstance(found, dict):
        raise BadInput(f"{shown(file)} is no HF configuration", want="a JSON object with model_type and sizes")
    return found


def _stated_id(file):
    """The id that a configuration states of itself."""
    stated = fields(file).get("_name_or_path")
    if isinstance(stated, str) and is_id(stated):
        return stated
    raise BadInput(
        "which model is it?",
        got=f"{shown(file)}, which does not say (few do: an id in _name_or_path)",
        want="--id ORG/NAME: it names the folder under models/",
    )


def _known_type(fields, name):
    """Refuses a model_type that transformers does not know, which says so at length and advises an upgrade."""
    import transformers
    from transformers import CONFIG_MAPPING

    kind = fields.get("model_type")
    if isinstance(kind, str) and kind in CONFIG_MAPPING:
        return
    covered = {json.loads(known.known_config_path(hf_id).read_text())["model_type"] for hf_id in known.known_ids()}
    want = f"a model_type that it knows; covered are {', '.join(sorted(covered))}, and what is built like them"
    if kind is None:
        raise BadInput(f"{name} has no model_type", want=want)
    raise BadInput(f"transformers {transformers.__version__} does not know model_type {kind!r}", got=name, want=want)


def _reason(error):
    """Field and message in one line; the validators of transformers have the message in the cause."""
    from huggingface_hub.errors import StrictDataclassError

    if isinstance(error, StrictDataclassError) and error.__cause__ is not None:
        error = error.__cause__
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__


def _check(fields, name):
    """Refuses values that no model has, but that transformers takes, divides by, or fetches code for."""
    problem = f"cannot use the configuration {name}"
    text = fields.get("text_config")
    for place, part in (("", fields), ("text_config.", text if isinstance(text, dict) else {})):
        for field, value in part.items():
            for found, want in _wrong(str(field), value):
                raise BadInput(problem, got=f"{place}{found}", want=want)
    sizes = text if isinstance(text, dict) else fields
    heads, kv_heads = sizes.get("num_attention_heads"), sizes.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(kv_heads, int) and heads % kv_heads:
        raise BadInput(
            problem,
            got=f"num_attention_heads = {heads}, num_key_value_heads = {kv_heads}",
            want="query heads in equal groups, one for each KV head",
        )


def _wrong(field, value):
    """(field = value, what is wanted) of what is wrong with a field."""
    said = f"{field} = {value!r}"
    if field in SIZES and not isinstance(value, (list, dict, type(None))):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= SIZES[field]:
            yield said, f"a whole number, at least 1, at most {SIZES[field]}"
    elif re.search(r"(_eps|epsilon|^eps)$", field):
        if value is not None and not _number(value, 0, 1):
            yield said, "a number from 0 to 1"
    elif field in ("dtype", "torch_dtype") and value is not None:
        if str(value).removeprefix("torch.") not in DTYPES:
            yield said, "one of " + ", ".join(DTYPES)
    elif field.strip("_").removesuffix("_internal") in ("attn_implementation", "experts_implementation"):
        names = value.values() if isinstance(value, dict) else [value]
        if not all(n is None or n in (*ATTENTION, "grouped_mm", "batched_mm") for n in map(_hashable, names)):
            yield said, "attention of transformers itself: " + ", ".join(ATTENTION)
    elif field in ("rope_scaling", "rope_parameters", "rope_theta", "partial_rotary_factor"):
        yield from _wrong_rope(field, value)
    elif isinstance(value, float) and math.isnan(value):
        yield said, "a number"


def _wrong_rope(field, value):
    if field in ("rope_scaling", "rope_parameters"):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from _wrong_rope(f"{field}.{key}", inner)
        elif value is not None:
            yield f"{field} = {value!r}", "an object"
        return
    key = field.rpartition(".")[2]
    if key in ("rope_type", "type") and not isinstance(value, (str, type(None))):
        yield f"{field} = {value!r}", "a name"
    elif isinstance(value, dict):  # one set of parameters for each type of layer
        for inner, v in value.items():
            yield from _wrong_rope(f"{field}.{inner}", v)
    elif key in ("rope_theta", "factor", "partial_rotary_factor", "original_max_position_embeddings"):
        if value is not None and not _number(value, 1e-6, 1e18):
            yield f"{field} = {value!r}", "a number above 0"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{field} = {value!r}", "a finite number"


def _number(value, low, high):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _hashable(value):
    return value if isinstance(value, str) or value is None else repr(value)


def check_tokens(config, name):
    """Refuses token ids that the vocabulary does not have, before they are used as its rows."""
    problem = f"cannot use the configuration {name}"
    for field in ("eos_token_id", "pad_token_id", "bos_token_id"):
        given = getattr(config, field, None)
        for value in given if isinstance(given, (list, tuple)) else [given]:
            least = -config.vocab_size if field == "pad_token_id" else 0
            if value is not None and (type(value) is not int or not least <= value < config.vocab_size):
                raise BadInput(problem, got=f"{field} = {given!r}", want=f"ids from 0 to {config.vocab_size - 1}")


def quantised_by(given):
    """What a quantization_config says of itself."""
    given = given if isinstance(given, dict) else getattr(given, "to_dict", dict)()
    known = [f"{k} {given[k]}" for k in ("quant_method", "bits", "fmt", "quant_algo") if given.get(k) is not None]
    return f"quantization_config: {', '.join(known) or 'of an unknown kind'}"
