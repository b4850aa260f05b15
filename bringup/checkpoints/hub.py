"""The model hub: asked only where it can be reached, and then no longer than seconds."""

from contextlib import suppress
from pathlib import Path

from bringup.checkpoints.known import known_ids
from bringup.errors import BadInput


def snapshot(hf_id):
    """The local snapshot of a hub model, downloaded when needed; fails within seconds without a hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "tokenizer*", "*.model", "*.jinja"]
    try:
        directory = Path(snapshot_download(hf_id, allow_patterns=wanted, local_files_only=True))
        if any(directory.glob("*.safetensors")):
            return directory
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass  # not in the cache
    try:
        require_hub()
        return Path(snapshot_download(hf_id, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        kept = "; or --random-weights for its true configuration" if hf_id in known_ids() else ""
        raise BadInput(
            f"cannot get {hf_id}: no such directory here, not in the HF cache, and not from the hub",
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
            hint="--model DIR with a downloaded checkpoint, or HF_HOME=DIR of a cache that has it, or `hf auth login` "
            "where the model is gated" + kept,
        ) from error


def require_hub(timeout_seconds=8):
    """Raise at once where the hub cannot be reached; its own client would retry for minutes."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    with suppress(HTTPError):  # an answer, whatever it says
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=timeout_seconds).close()
