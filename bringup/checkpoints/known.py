"""Models whose HF configuration is kept here, so that their true size can be had without a download."""

import json
from pathlib import Path

from bringup.errors import BadInput

CONFIGS = Path(__file__).parent / "configs"


def known_ids():
    return sorted(p.stem.replace("--", "/", 1) for p in CONFIGS.glob("*.json"))


def known_config_path(hf_id):
    path = CONFIGS / f"{hf_id.replace('/', '--')}.json"
    if not path.is_file():
        raise BadInput(
            "no configuration is kept for this model",
            got=hf_id,
            want="one of " + ", ".join(known_ids()),
            hint="give --model DIR",
        )
    return path


def known_config(hf_id):
    """The HF configuration that is kept for the id."""
    from transformers import AutoConfig

    return AutoConfig.for_model(**json.loads(known_config_path(hf_id).read_text()))
