"""Run any Python program that says `import ttnn`, unmodified, on the chosen backend.

bringup run script.py --its --own arguments
bringup run --system t3000 package.module            # as `python -m`
bringup run --log ops.json script.py                 # what it called: op log, memory, predicted time per op

Options of `bringup run` stand before the program; what follows is the program's. sys.argv, standard output, the exit
code and tracebacks are its own; what `bringup` has to say goes to standard error. Processes that the program starts are
plain Python, and find only a ttnn that is installed.
"""

import argparse
import os
import runpy
import sys
import traceback
from pathlib import Path

from bringup import arguments, backends
from bringup.backends import library_warnings, systems
from bringup.checkpoints import old_names
from bringup.errors import BadInput, shown
from bringup.programs import log

HELP = "run any program that says `import ttnn`, unmodified"
SYSTEM = "TTNN_EMULATOR_SYSTEM"  # which machine a plain program finds


def add_arguments(parser):
    add_shared_arguments(parser)
    parser.add_argument("program", metavar="SCRIPT_OR_MODULE", help="a Python file, or the name of a module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="the program's own")


def add_shared_arguments(parser):
    """What `run` and `pytest` are told alike."""
    parser.add_argument("--system", type=arguments.name,
                        help=f"the machine that the program finds (default: {SYSTEM}, then n150)")  # fmt: skip
    backends.add_arguments(parser)
    parser.add_argument("--log", metavar="FILE", help="write every call: operands, memory, line; show a table")


def run(args):
    start(args)
    with log.kept(args.log, args.system):
        return execute(args.program, args.arguments)


def start(args):
    """Chooses the backend, and says so on standard error."""
    args.system = args.system or os.environ.get(SYSTEM) or "n150"
    os.environ[SYSTEM] = systems.get(args.system).name
    print(backends.activate(args.backend, args.system, args.numerics), file=sys.stderr)
    library_warnings.let_go()


def execute(program, arguments):
    """The program's exit code; an exception that leaves it is printed as Python does, from the program's first line."""
    path = Path(program)
    is_file = path.exists()
    if not is_file and not all(part.isidentifier() for part in program.split(".")):
        raise BadInput("no such program", got=program, want="a Python file, or the name of a module")
    sys.argv = [program, *arguments]
    sys.path[0] = str(path.resolve().parent if is_file and not path.is_dir() else Path.cwd())
    leave_the_clone(Path(sys.path[0]))
    sys.meta_path.insert(0, old_names.Finder(_say_old))
    try:
        if is_file:
            names = old_names.read_by(path) if path.is_file() else ()
            if names:
                _say_old(path, names)
            runpy.run_path(program, {"__builtins__": old_names.own_imports()} if names else None, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return _code(end)
    except ImportError as error:
        if not is_file and "_get_module_details" in _names(error):  # runpy did not find the module itself
            raise BadInput(f"no module that can be run: {error}", got=program, hint="a file has its .py") from None
        return _print_own(error)
    except BaseException as error:
        return _print_own(error)
    return 0


def leave_the_clone(place: Path) -> None:
    """Takes this project's clone off the path of programs elsewhere: an installation by `pip install -e` puts it there,
    and with it a package `tests` before theirs. What is imported already stays."""
    above = {place.resolve(), *place.resolve().parents}
    for entry in {*sys.path} - {str(place)}:
        clone = Path(entry or ".").resolve()
        if clone not in above and (clone / "ttnn_emulator").is_dir() and (clone / "pyproject.toml").exists():
            sys.path[:] = [p for p in sys.path if p != entry]


def _say_old(path, names):
    print(f"{shown(path)} is written for transformers 4: {', '.join(names)} answered as there", file=sys.stderr)


def _code(end):
    """What Python makes of SystemExit: nothing is 0, a number itself, anything else is printed and 1."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _names(error):
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)][-1:]


def _print_own(error):
    """The traceback without the frames of this file and of runpy."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, runpy.__file__, "<frozen runpy>"):
        trace = trace.tb_next
    sys.excepthook(type(error), error.with_traceback(trace), trace)
    return 130 if isinstance(error, KeyboardInterrupt) else 1
