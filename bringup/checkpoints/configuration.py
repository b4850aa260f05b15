"""The HF configuration that a command is given, and which model it is of."""

import json
import re
from pathlib import Path

from bringup.checkpoints import hub, known
from bringup.errors import BadInput, shown
from bringup.files import located

WANT_ID = "ORG/NAME as on the hub: letters, digits, '.', '-' and '_'; no '..' or '--', no '.' or '-' first or last"
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
         "head_dim", "vocab_size", "max_position_embeddings")  # fmt: skip


def find(model, hf_id=None):
    """(HF configuration, id, what a command needs to find the model: " --model ..." or nothing)."""
    if hf_id is not None and not is_id(hf_id):
        raise BadInput("--id is no HF id", got=hf_id, want=WANT_ID)
    path = located(model)
    if path.exists():
        file = config_file(path)
        hf_id = hf_id or _stated_id(file)
        return read(path), hf_id, f" --model {shown(file.parent)}"
    if not is_id(model):
        want = "an HF id org/name, a checkpoint directory or a config.json"
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
    """The config.json that a path means, itself or of its directory."""
    path = Path(path)
    if path.is_dir() and not (path / "config.json").is_file():
        raise BadInput("not a checkpoint directory", got=shown(path), want="a directory with config.json")
    return path / "config.json" if path.is_dir() else path


def read(path):
    """The HF configuration of a checkpoint directory or a config.json; `BadInput` says what is wrong with it."""
    from transformers import AutoConfig

    file = config_file(path)
    fields = _fields(file)
    _known_type(fields, shown(file))
    _check_sizes(fields, shown(file))
    try:
        config = AutoConfig.from_pretrained(file)
    except _unusable() as error:
        raise BadInput(f"cannot use the configuration {shown(file)}", got=_reason(error)) from error
    _check_sizes(config.to_dict(), shown(file))
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
    _known_type(fields, model)
    _check_sizes(fields, model)
    try:
        config = AutoConfig.from_pretrained(model, **local)
    except _unusable() as error:
        raise BadInput(f"cannot use the configuration of {model}", got=_reason(error)) from error
    _check_sizes(config.to_dict(), model)
    return config


def _fields(file):
    try:
        fields = json.loads(file.read_text())
    except ValueError as error:
        raise BadInput(f"{shown(file)} is not valid JSON", got=str(error)) from error
    if not isinstance(fields, dict):
        raise BadInput(f"{shown(file)} is no HF configuration", want="a JSON object with model_type and sizes")
    return fields


def _stated_id(file):
    """The id that a configuration states of itself."""
    stated = _fields(file).get("_name_or_path")
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


def _unusable():
    """What the classes of transformers raise on values that they cannot take."""
    from huggingface_hub.errors import StrictDataclassError

    return OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, StrictDataclassError


def _reason(error):
    """Field and message in one line; the validators of transformers have the message in the cause."""
    from huggingface_hub.errors import StrictDataclassError

    if isinstance(error, StrictDataclassError) and error.__cause__ is not None:
        error = error.__cause__
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__


def _check_sizes(fields, name):
    """Refuses sizes that no model has, but that transformers takes or divides by."""
    text = fields.get("text_config")
    sizes = {field: (text if isinstance(text, dict) else fields).get(field) for field in SIZES}
    for field, size in sizes.items():
        if isinstance(size, int) and size < 1:
            raise BadInput(f"cannot use the configuration {name}", got=f"{field} = {size}", want="at least 1")
    heads, kv_heads = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    if isinstance(heads, int) and isinstance(kv_heads, int) and heads % kv_heads:
        raise BadInput(
            f"cannot use the configuration {name}",
            got=f"num_attention_heads = {heads}, num_key_value_heads = {kv_heads}",
            want="query heads in equal groups, one for each KV head",
        )
