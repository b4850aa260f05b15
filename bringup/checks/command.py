"""`bringup check`: the bring-up guide's ten-item checklist on one model.py, with evidence for each item."""

import re
import shlex

from bringup import arguments, spread
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


def add_arguments(parser):
    add_model_arguments(parser, nargs="?")
    parser.add_argument("--all", action="store_true",
                        help="every model file of the folder MODEL_PY (default: models)")  # fmt: skip
    spread.add_arguments(parser, "with --all, checks")
    parser.add_argument("--quick", action="store_true", help="fewer tokens and one layer's blocks")
    parser.add_argument("--items", type=arguments.name, metavar="A,B", help="only these items")
    parser.add_argument(
        "--out",
        type=arguments.name,
        metavar="DIR",
        help="the report's folder (default: reports/<model>-<system>, with --items reports/<model>-<system>-items)",
    )
    parser.add_argument("--json", type=arguments.name, metavar="FILE",
                        help="write the record, with --all one of each model file")  # fmt: skip
    parser.add_argument("--write", action="store_true",
                        help="write the results into MODEL_BRINGUP.md, results/ and MODELS.md")  # fmt: skip


def run(args):
    """The exit code. Whatever goes wrong, the last line is the command to type next."""
    from bringup.errors import BadInput, BringupError

    if args.all:
        from bringup.checks import every

        return every.run(args)
    if args.model_py is None:
        raise BadInput("which model file?", want="MODEL_PY, or --all", hint="bringup check --help")
    try:
        return _run(args)
    except BringupError as error:
        raise error.followed_by(next_command(args, str(error))) from error


def _run(args):
    from bringup.checks import one, results, table
    from bringup.console import quiet_libraries
    from bringup.errors import shown
    from bringup.files import writable, write_json

    quiet_libraries()
    writable(args.out, folder=True)
    writable(args.json)
    check, context, paths = one.checked(args, announce=True)
    print(table.text(check))
    if args.json:
        paths.append(write_json(args.json, check))
    if args.write:
        paths += results.write(check, context.__dict__.get("measured"), context.job)
    for path in paths:
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
