"""`bringup check --all`: the checklist on every model file of a folder, spread over processes or a Ray cluster.

What each has found is a file in OUT/points, named by all that it depends on: what is there is not run again.
"""

import argparse
import hashlib
import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from bringup import console, spread
from bringup.checks import one
from bringup.checks.outcome import FAIL, PASS, SKIPPED
from bringup.errors import BadInput, BringupError, printable, shown
from bringup.files import PROJECT, located, writable, write_json

NOT_RUN = "not run"
FIGURES = ("top1", "top5", "kl_mean")


def run(args):
    """The exit code: 0 where all have passed."""
    console.quiet_libraries()
    spread.check(args)
    if args.write:
        raise BadInput("--write takes one model file", got="--all", hint="bringup check MODEL_PY --write")
    folder, out = located(args.model_py or "models"), Path(args.out or "reports/all")
    writable(out, folder=True)
    writable(args.json)
    each = {path: _of(args, path, out) for path in model_files_of(folder, args.system)}
    files, failed = {}, {}
    for path, its in each.items():
        try:
            files[path] = out / "points" / f"{Path(its.out).name}-{digest(its)}.json"
        except BringupError as error:
            failed[path] = str(error)
    print(f"{len(each)} model files of {shown(folder)}; reports in {shown(out)}", flush=True)
    if there := sum(path.is_file() for path in files.values()):
        print(f"{there} are there already")
    tasks = {file: (vars(each[path]),) for path, file in files.items()}
    lost = spread.run(write_point, tasks, args.jobs, args.engine, "checks", apart=True)
    failed |= {path: lost[file] for path, file in files.items() if file in lost}
    rows = [_row(path, its.out, files.get(path), failed.get(path)) for path, its in each.items()]
    print(table(rows))
    if args.json:
        print(f"wrote {shown(write_json(args.json, {'format': 1, 'checks': rows}))}")
    return 0 if all(row["verdict"] == PASS for row in rows) else 1


def model_files_of(folder, system=None):
    """The files under <org>/<model>/<system>/, or as deep as they lie."""
    found = sorted(p for p in folder.rglob("model.py") if system in (None, *p.parts[-3:-2]))
    if not found:
        of = f" of {system}" if system else ""
        raise BadInput(f"no model files{of}", got=shown(folder), want="a folder like models/")
    return found


def _of(args, path, out):
    """The arguments of one file's check."""
    *_, model, system, kind, _ = path.resolve().parts
    name = f"{model}-{system}" + f"-{kind}" * (kind != "functional")
    asked = args.model or (None if args.random_weights else checkpoint_of(path))
    return argparse.Namespace(**vars(args) | {"model_py": shown(path), "model": asked, "out": str(out / name)})


def checkpoint_of(path):
    """The checkpoint that the result in results/ was measured with; None where there is none here."""
    *_, org, model, system, _, _ = path.resolve().parts
    for file in sorted((PROJECT / "results").glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        if (result["hf_id"], result["system"]) == (f"{org}/{model}", system) and located(result["checkpoint"]).exists():
            return result["checkpoint"]
    return None


def digest(args):
    """Changes with all that a check's result depends on: settings, weights, prompt and code."""
    job = one.job_of(args)
    settings = {k: v for k, v in vars(args).items() if k not in ("cache_dir", "out", "json", "jobs", "engine", "run")}
    what = [settings, job.source.fingerprint(job.cache_dir), job.prompt_ids, str(job.activation)]
    what.append(spread.code(job.model_file.path.resolve()))
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:12]


def write_point(args, path):
    console.quiet_libraries()
    console.instead = lambda *_: None
    with redirect_stdout(StringIO()):
        check, _, _ = one.checked(argparse.Namespace(**args))
    write_json(path, check)


def _row(path, report, file, why):
    """What the table and --json say of one."""
    row = {"model_py": shown(path), "verdict": NOT_RUN, "why": why, "report": None}
    if why is not None:
        return row
    check = json.loads(file.read_text(encoding="utf-8"))
    bad = [f"{r['name']}: {r['summary']}" for r in check["items"] if r["status"] == FAIL]
    row |= {"verdict": check["verdict"], "why": "; ".join(bad) or None, "report": shown(Path(report) / "report.html")}
    row |= {status: sum(r["status"] == status for r in check["items"]) for status in (PASS, FAIL, SKIPPED)}
    row |= {name: check[name] for name in ("hf_id", "system", "checkpoint", "seconds")}
    return row | {name: (check["accuracy"] or {}).get(name) for name in FIGURES}


def table(rows):
    """A line for each and one for all, for people."""
    head = ("", "passed", "failed", "skipped", "top-1", "mean KL", "seconds", "model file", "")
    lines = [head]
    for row in rows:
        numbers = [str(row.get(status, "-")) for status in (PASS, FAIL, SKIPPED)]
        top1, kl, seconds = (row.get(name) for name in ("top1", "kl_mean", "seconds"))
        numbers += ["-" if top1 is None else f"{top1:.1%}", "-" if kl is None else f"{kl:.1e}"]
        numbers += ["-" if seconds is None else f"{seconds:.0f}"]
        why = (row["why"] or "").splitlines()
        lines.append((row["verdict"], *numbers, row["model_py"], why[0] if why else ""))
    widths = [max(len(line[k]) for line in lines) for k in range(len(head) - 1)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:7], widths[1:7])),
                   line[7].ljust(widths[7]), line[8]]).rstrip()
        for line in lines
    ]  # fmt: skip
    count = {v: sum(row["verdict"] == v for row in rows) for v in (PASS, FAIL, NOT_RUN)}
    text.append(f"{len(rows)} model files: " + ", ".join(f"{n} {v}" for v, n in count.items()))
    return printable("\n".join(text))
