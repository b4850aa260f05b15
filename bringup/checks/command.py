"""`bringup check`: the bring-up guide's ten-item checklist on one model.py, with evidence for each item."""

import re
import shlex
from pathlib import Path

from bringup import arguments
from bringup.evaluation.command import add_model_arguments

HELP = "the bring-up checklist on one model.py: pass, fail or skipped, with evidence and a report"
#: Part of a message -> the command that helps.
NEXT = (
    ("no such model file", "bringup new HF_ID_OR_CONFIG --id ORG/NAME"),
    ("has no build_model", "bringup new HF_ID_OR_CONFIG --id ORG/NAME --out example"),
    ("does not take (hf_model", "bringup new HF_ID_OR_CONFIG --id ORG/NAME --out example"),
    ("is for another mesh", "bringup check {words} --system {system}"),
    ("checkpoint", "bringup check {words} --model DIR"),
    ("no configuration is kept", "bringup check {words} --model DIR"),
    ("cannot get ", "bringup check {words} --model DIR"),
    ("backend", "bringup doctor"),
)
NEW_TOKENS, QUICK_NEW_TOKENS = 100, 48


def add_arguments(parser):
    add_model_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="fewer tokens and one layer's blocks")
    parser.add_argument("--items", type=arguments.name, metavar="A,B", help="only these items")
    parser.add_argument(
        "--out",
        type=arguments.name,
        metavar="DIR",
        help="the report's folder (default: reports/<model>-<system>, with --items reports/<model>-<system>-items)",
    )
    parser.add_argument("--write", action="store_true",
                        help="write the results into MODEL_BRINGUP.md, results/ and MODELS.md")  # fmt: skip


def run(args):
    """The exit code. Whatever goes wrong, the last line is the command to type next."""
    from bringup.errors import BringupError

    try:
        return _run(args)
    except BringupError as error:
        raise error.followed_by(next_command(args, str(error))) from error


def _run(args):
    from bringup.checks import checklist, results, table
    from bringup.console import quiet_libraries
    from bringup.errors import BadInput, shown
    from bringup.evaluation.run import Job, Settings
    from bringup.files import writable

    quiet_libraries()
    items = args.items.split(",") if args.items else None
    chosen = checklist.chosen(items)
    if args.write and items:
        raise BadInput("--write takes the whole checklist", got=f"--items {args.items}")
    writable(args.out, folder=True)
    tokens = QUICK_NEW_TOKENS if args.quick else NEW_TOKENS
    names = Settings.__dataclass_fields__
    given = {k: v for k, v in vars(args).items() if k in names}
    job = Job(Settings(**given, max_new_tokens=tokens, min_new_tokens=tokens))
    print(job.activation)
    print(job.describe(), flush=True)
    with table.watched(len(chosen)) as watch:
        check, context = checklist.run_with_context(job, quick=args.quick, items=items, watch=watch)
    print(table.text(check))
    for path in write_folder(check, context.records, Path(args.out or default_folder(check, items))):
        print(f"wrote {shown(path)}")
    if args.write:
        for path in results.write(check, context.__dict__.get("measured"), job):
            print(f"wrote {shown(path)}")
    if check["verdict"] == "pass":
        return 0
    failed = next(r for r in check["items"] if r["status"] == "fail")
    print(f"next: {next_command(args, failed['summary'], check)}")
    return 1


def next_command(args, problem, check=None):
    """What to type after a check that failed, or one that could not begin because of `problem`."""
    from bringup.checks.table import RAISED

    words = f"{shlex.quote(args.model_py)}" + (f" --model {shlex.quote(args.model)}" if args.model else "")
    words += " --random-weights" * args.random_weights + (f" --system {args.system}" if args.system else "")
    if RAISED.match(problem):  # the model file's own line did
        return f"BRINGUP_TRACEBACK=1 bringup demo {words} --max_new_tokens 2"
    if check is not None:
        return f"bringup layers {words}"
    for begin, command in NEXT:
        if begin in problem:
            system = re.search(r"--system (\S+)", problem)
            return command.format(words=words, system=system[1] if system else "SYSTEM")
    return "bringup check --help"


def default_folder(check, items):
    """reports/<model>-<system>; what some items alone have found does not replace the report of all."""
    name = (check["hf_id"] or check["checkpoint"]).rpartition("/")[2]
    return Path("reports") / f"{name}-{check['system']}{'-items' if items else ''}"


def write_folder(check, records, folder):
    """check.json, report.html and, where there is an op log, a folder for ttnn-visualizer; their paths."""
    from bringup.files import write_json
    from bringup.report import html, visualizer

    paths = [folder / "check.json", folder / "report.html"]
    write_json(paths[0], check)
    html.write(check, paths[1])
    calls = {phase: records[phase] for phase in ("prefill", "decode")} if records else {}
    if any(calls.values()):
        seconds = visualizer.predicted(calls, check["system"])
        paths.append(visualizer.write(calls, folder / "visualizer", check["system"], seconds))
    return paths
