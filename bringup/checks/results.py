"""`bringup check --write`: the results section of MODEL_BRINGUP.md, the result JSON, and MODELS.md from all results."""

import json
import re

from bringup import files
from bringup.checks.outcome import PASS
from bringup.errors import BadInput

BEGIN, END = "<!-- bringup check --write: begin -->", "<!-- bringup check --write: end -->"
NOTES = "MODEL_BRINGUP.md"


def write(check, measured, job):
    """Writes what a check has found; the paths of the files."""
    if "top1" not in (measured or {}):
        raise BadInput("there is nothing to write down", got="no accuracy", hint="the item teacher_forcing says why")
    paths = [write_notes(check, job.model_file.path.with_name(NOTES))]
    if job.model_file.hf_id:  # models/<org>/<model>/<system>/functional/model.py
        paths += write_models(measured, job.model_file.path.resolve())
    return paths


def write_notes(check, path):
    """Puts the section between its markers: in place of the one before, else at the end."""
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {check['hf_id'] or check['checkpoint']}\n"
    found = f"{BEGIN}\n{section(check)}{END}"
    if BEGIN in text and END in text:
        text = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: found, text, count=1, flags=re.S)
    else:
        text = f"{text.rstrip()}\n\n## Results\n\n{found}\n"
    return files.write(path, text)


def write_models(measured, model_py):
    """The result as eval.py writes it, and the table of all results."""
    from bringup.report import models

    *_, system, kind, _ = model_py.parts
    name = f"{measured['checkpoint'].rstrip('/').rpartition('/')[2]}-{system}" + f"-{kind}" * (kind != "functional")
    root = model_py.parents[5]
    path = root / "results" / f"{name}.json"
    if _has_prediction(path):  # of the file as it was
        measured = models.with_prediction(measured, model_py)
    files.write_json(path, measured)
    return [path, files.write(root / "MODELS.md", models.render(models.read(path.parent)))]


def _has_prediction(path):
    try:
        return "true_size" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):  # there is none, or it is no result: it is written anew
        return False


def section(check):
    """The verdict, the items, and how to repeat it, as markdown."""
    where = check["backend"] + (f", {check['numerics']} numerics" if check["numerics"] else "")
    weights = "random weights" if check["random_weights"] else f"`{check['checkpoint']}`"
    lines = [f"{check['verdict'].upper()} on {check['system']} ({where}) with {weights}:", ""]
    lines += ["| item | | what was found |", "| --- | --- | --- |"]
    lines += [f"| {r['name']} | {r['status']} | {_cell(r['summary'])} |" for r in check["items"]]
    warnings = [e for r in check["items"] if r["status"] == PASS for e in r["evidence"] if e.startswith("warning: ")]
    lines += ["", *(f"- {w}" for w in warnings)] if warnings else []
    lines += ["", "```bash", check["command"], "```", ""]
    return "\n".join(lines)


def _cell(text):
    return " ".join(text.split()).replace("|", "\\|")
