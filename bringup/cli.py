"""The `bringup` command: each subcommand is a module with HELP, `add_arguments(parser)` and `run(args)`."""

import importlib
import sys

from bringup import __version__
from bringup.arguments import Parser
from bringup.errors import guarded

# Heavy imports belong inside `run`, so that --help answers at once.
COMMANDS = {
    "check": "bringup.checks.command",
    "layers": "bringup.evaluation.layers.command",
    "eval": "bringup.evaluation.command",
    "demo": "bringup.checks.demo",
    "demo-real": "bringup.checks.demo_real",
    "bench": "bringup.bench.command",
    "run": "bringup.programs.run",
    "pytest": "bringup.programs.pytest_command",
    "plan": "bringup.planning.command",
    "sweep": "bringup.tuning.sweep",
    "tune": "bringup.tuning.tune",
    "accuracy": "bringup.tuning.accuracy",
    "tasks": "bringup.tuning.tasks",
    "random-checkpoint": "bringup.checkpoints.random_weights",
    "new": "bringup.new.command",
    "verify": "bringup.backends.verify",
    "doctor": "bringup.backends.doctor",
    "report": "bringup.report.html",
    "models": "bringup.report.models",
}

#: What `bringup` alone prints; docs/README.md walks through each with its output.
JOURNEYS = """\
Bring up language models on Tenstorrent devices, with or without one.

first run             bringup demo
                        a small trained model on an emulated n150, and a report
I have a model        bringup plan ID_OR_CONFIG
                        does it fit, how long a context, how fast will it be
                      bringup new ID_OR_CONFIG --id ORG/NAME
                        its model.py, or what no block covers
I have a model.py     bringup check MODEL_PY --model DIR
                        ten questions, each with evidence, and a report
                      bringup verify MODEL_PY
                        the same calls on the vendor's library, without a board
I have one that fails bringup layers MODEL_PY --model DIR
                        the first point that leaves the HF model, and why
                      bringup doctor
                        what this machine lacks for each backend
I have a program      bringup run PROGRAM.py
                        any program that imports ttnn, unmodified
all commands          bringup --help, and bringup COMMAND --help
"""


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print(JOURNEYS, end="")
        return 0
    parser = Parser(prog="bringup", description="Bring up language models on Tenstorrent devices.")
    parser.add_argument("--version", action="version", version=f"ttnn-bringup {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, path in COMMANDS.items():
        module = importlib.import_module(path)
        sub = subparsers.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run, rest=getattr(module, "REST", None))
    args, rest = parser.parse_known_args(argv)
    if args.rest:
        setattr(args, args.rest, rest)
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return guarded(args.run, args)


def script(module, doc):
    """A command's module as a script of its own; the exit code."""
    parser = Parser(description=doc)
    module.add_arguments(parser)
    return guarded(module.run, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
