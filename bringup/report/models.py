"""MODELS.md: the table of measured bring-ups, from the JSON that `eval.py --json results/NAME.json` writes.

`bringup models --predict` adds to each result what `plan` predicts of its file at the model's true size.
"""

import json
from pathlib import Path

from bringup import arguments, files
from bringup.errors import BadInput, BringupError, printable, shown

HELP = "write MODELS.md from results/*.json, or --check that it is current"

HEAD = """# Models

Teacher-forced accuracy of the model files here against their HF models. Written by `bringup models` from
`results/*.json`; do not edit. Top-1: the device's best token is the reference's. Top-5: the reference's token is among
the device's five best. In brackets the Wilson 95 % interval. Rows of the backend `emulator` were computed on a PC with
a device's numerics as far as they are known; they are not measurements of a board. Predicted: tokens per second and
user, and the time to the first token, of the file at the true size of its model, with a prompt as long as the published
row's (128 tokens where there is none); not measured.
Published: what others measured of their own functional or optimised file of that model and system, named here to
compare (`bringup/planning/published.json`).
"""

COLUMNS = (
    "Model", "System", "File", "Backend", "Checkpoint", "Prompt + new", "Top-1", "Top-5", "DRAM per chip",
    "Predicted t/s/u, TTFT", "Published t/s/u, TTFT",
)  # fmt: skip


def add_arguments(parser):
    parser.add_argument("--results", type=arguments.name, default="results", metavar="DIR",
                        help="folder of result JSON files (default: results)")  # fmt: skip
    parser.add_argument("--out", type=arguments.name, default="MODELS.md", metavar="FILE", help="default: MODELS.md")
    parser.add_argument("--predict", action="store_true",
                        help="first add to the results what is predicted of their files")  # fmt: skip
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the file is not current")


def run(args):
    if args.predict:
        predict(Path(args.results))
    text = render(read(Path(args.results)))
    out = Path(args.out)
    if not args.check:
        files.write(out, text)
        print(f"wrote {shown(out)}")
    elif not out.is_file() or out.read_text() != text:
        raise BringupError(f"{shown(out)} is not what {args.results} says", hint="bringup models")
    else:
        print(f"{shown(out)} is current")


def predict(folder):
    """Writes into each result, as `true_size`, what is predicted of its file; one without a known model stays."""
    from bringup.console import progress

    read(folder)  # refuses what is no result
    paths = sorted(folder.glob("*.json"))
    with progress("predicting", len(paths)) as advance:
        for path in paths:
            result = json.loads(path.read_text())
            file = files.located(result["model_py"])
            if file.is_file():
                files.write_json(path, with_prediction(result, file))
            advance()


def with_prediction(result, file):
    """The result with what is predicted of its file at the true size of its model, where that is a known one."""
    from bringup.planning import beside

    found = beside.predicted(file)
    return result if found is None else result | {"true_size": {"label": "predicted", **found}}


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
                (result["hf_id"] or "", _place(result), result["checkpoint"], result["backend"], path, result)
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
    from bringup.planning import beside

    backend = result["backend"] + (f", {result['numerics']}" if result["numerics"] else "")
    tokens = f"{result['prompt_tokens']} + {result['n']}" + (
        " (decode only)" if result["prefill"] != "one pass" else ""
    )
    dram = result["memory"]["dram"]["allocated"] / 2**20 if result["memory"] else None
    return (
        result["hf_id"] or result["model_py"],
        result["system"],
        _place(result)[1],
        backend,
        "random weights" if result["random_weights"] else f"`{result['checkpoint']}`",
        tokens,
        rate(result, "top1"),
        rate(result, "top5"),
        "" if dram is None else f"{dram:,.1f} MiB",
        beside.cells(result.get("true_size")),
        beside.cells(beside.published(result["hf_id"], *_place(result))),
    )


def _place(result):
    """(system, kind) as the folders of the model file say: models/ORG/NAME/t3000/optimized/model.py."""
    parts = Path(result["model_py"]).parts
    return parts[-3:-1] if len(parts) > 5 and parts[-6] == "models" else (result["system"], "")


def rate(result, name):
    low, high = result[f"{name}_interval"]
    if not 0 <= low <= result[name] <= high <= 1:
        raise ValueError(f"{name} = {result[name]}, in {low} to {high}")
    return f"{100 * result[name]:.1f} % ({100 * low:.0f} to {100 * high:.0f})"
