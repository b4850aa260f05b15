"""A message in a checkpoint's chat template, rendered where a hostile one does no harm: in a process with limits.

jinja's sandbox keeps a template from the machine, not from loops within loops and not from texts that double.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from bringup.errors import BadInput
from bringup.files import PACKAGES

SECONDS = 5  # of processor time that a template may take; a real one takes milliseconds
PATIENCE = 60  # seconds in all, on a machine that has other work
MEBIBYTES = 512  # beyond what Python and transformers take


def chat_ids(text, tokenizer, source):
    """A user's message in the checkpoint's chat template, up to where the answer begins, as token ids."""
    if not getattr(tokenizer, "chat_template", None):
        raise BadInput(
            f"{source.name} has no chat template: it was not made for --chat",
            hint="leave --chat out; or the checkpoint of the model's instruct version",
        )
    try:
        template = tokenizer.get_chat_template()
        tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
        message = [{"role": "user", "content": text}]
        given = {"conversations": [message], "chat_template": template, "add_generation_prompt": True} | tokens
        return list(tokenizer(_rendered(given), add_special_tokens=False)["input_ids"])
    except Exception as error:  # a template, and a tokenizer, raises whatever it likes
        raise BadInput(f"the chat template of {source.name} fails: {error}") from error


def _rendered(given):
    path = os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bringup.evaluation.chat"],
            input=json.dumps({"seconds": SECONDS, "arguments": given}),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=os.environ | {"PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"it does not end in {PATIENCE} s") from None
    if done.returncode < 0:
        raise RuntimeError(f"it does not end in {SECONDS} s")
    try:
        told = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"it ended with code {done.returncode} and no text: {done.stderr[-500:]}") from None
    if "error" in told:
        raise RuntimeError(told["error"])
    return told["text"]


def main():
    """The child: JSON of `render_jinja_template`'s arguments on stdin -> {"text"} or {"error"} on stdout."""
    from transformers.utils.chat_template_utils import render_jinja_template

    given = json.load(sys.stdin)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + given["seconds"]
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + (MEBIBYTES << 20)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    try:
        (text,), _ = render_jinja_template(**given["arguments"])
        told = json.dumps({"text": text})
    except MemoryError:
        told = json.dumps({"error": f"it takes more than {MEBIBYTES} MiB"})
    except Exception as error:  # whatever the template raises
        told = json.dumps({"error": str(error) or type(error).__name__})
    print(told)


if __name__ == "__main__":
    main()
