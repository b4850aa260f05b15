"""The `bringup` command: each subcommand is a module with HELP, `add_arguments(parser)` and `run(args)`."""

import argparse
import importlib
import sys

from bringup import __version__
from bringup.errors import guarded

# Heavy imports belong inside `run`, so that --help answers at once.
COMMANDS = {
    "check": "bringup.checks.command",
    "layers": "bringup.evaluation.layers.command",
    "eval": "bringup.evaluation.command",
    "demo": "bringup.evaluation.demo",
    "bench": "bringup.bench.command",
    "run": "bringup.programs.run",
    "pytest": "bringup.programs.pytest_command",
    "plan": "bringup.planning.command",
    "sweep": "bringup.tuning.sweep",
    "random-checkpoint": "bringup.checkpoints.random_weights",
    "new": "bringup.new.command",
    "verify": "bringup.backends.verify",
    "doctor": "bringup.backends.doctor",
    "report": "bringup.report.html",
    "models": "bringup.report.models",
}


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="bringup", description="Bring up language models on Tenstorrent devices.")
    parser.add_argument("--version", action="version", version=f"ttnn-bringup {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, path in COMMANDS.items():
        module = importlib.import_module(path)
        sub = subparsers.add_parser(
            name, help=module.HELP, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run, rest=getattr(module, "REST", None))
    args, rest = parser.parse_known_args(argv)
    if args.rest:
        setattr(args, args.rest, rest)
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return guarded(args.run, args)


if __name__ == "__main__":
    sys.exit(main())
