"""MODELS.md: the table of measured bring-ups, from the JSON that `eval.py --json results/NAME.json` writes."""

import json
from pathlib import Path

from bringup import arguments, files
from bringup.errors import BadInput, BringupError, printable, shown

HELP = "write MODELS.md from results/*.json, or --check that it is current"

HEAD = """# Models

Teacher-forced accuracy of the model files here against their HF models. Written by `bringup models` from
`results/*.json`; do not edit. Top-1: the device's best token is the reference's. Top-5: the reference's token is among
the device's five best. In brackets the Wilson 95 % interval. Rows of the backend `emulator` were computed on a PC with
a device's numerics as far as they are known; they are not measurements of a board.
"""

COLUMNS = ("Model", "System", "Backend", "Checkpoint", "Prompt + new", "Top-1", "Top-5", "DRAM per chip")


def add_arguments(parser):
    parser.add_argument("--results", type=arguments.name, default="results", metavar="DIR",
                        help="folder of result JSON files (default: results)")  # fmt: skip
    parser.add_argument("--out", type=arguments.name, default="MODELS.md", metavar="FILE", help="default: MODELS.md")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the file is not current")


def run(args):
    text = render(read(Path(args.results)))
    out = Path(args.out)
    if not args.check:
        files.write(out, text)
        print(f"wrote {shown(out)}")
    elif not out.is_file() or out.read_text() != text:
        raise BringupError(f"{shown(out)} is not what {args.results} says", hint="bringup models")
    else:
        print(f"{shown(out)} is current")


def read(folder):
    """The results of a folder, in the table's order."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise BadInput("no results", got=shown(folder), want="*.json written by eval.py --json")
    results = []
    for path in paths:
        try:
            result = json.loads(path.read_text())
            results.append(
                (result["hf_id"] or "", result["system"], result["checkpoint"], result["backend"], path, result)
            )
            " ".join([*row(result), result["command"]])
        except Exception as error:  # whatever odd values make the table's arithmetic raise
            raise BadInput(f"not a result of eval.py: {shown(path)}", got=f"{type(error).__name__}: {error}") from error
    return [r[-1] for r in sorted(results, key=lambda r: r[:5])]


def render(results):
    lines = [HEAD, "| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(map(_cell, row(r))) + " |" for r in results]
    lines += ["", "Commands, in the order of the rows:", "", "```bash"]
    lines += [printable(" ".join(r["command"].split())).replace("```", "") for r in results]
    return "\n".join([*lines, "```", ""])


def _cell(text):
    """Text that neither ends a cell nor a row."""
    return printable(" ".join(text.split())).replace("|", "\\|")


def row(result):
    backend = result["backend"] + (f", {result['numerics']}" if result["numerics"] else "")
    tokens = f"{result['prompt_tokens']} + {result['n']}" + (
        " (decode only)" if result["prefill"] != "one pass" else ""
    )
    dram = result["memory"]["dram"]["allocated"] / 2**20 if result["memory"] else None
    return (
        result["hf_id"] or result["model_py"],
        result["system"],
        backend,
        "random weights" if result["random_weights"] else f"`{result['checkpoint']}`",
        tokens,
        rate(result, "top1"),
        rate(result, "top5"),
        "" if dram is None else f"{dram:,.1f} MiB",
    )


def rate(result, name):
    low, high = result[f"{name}_interval"]
    if not 0 <= low <= result[name] <= high <= 1:
        raise ValueError(f"{name} = {result[name]}, in {low} to {high}")
    return f"{100 * result[name]:.1f} % ({100 * low:.0f} to {100 * high:.0f})"
