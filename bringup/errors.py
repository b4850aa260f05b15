"""What a user gets to read when something is wrong: the problem, what was got and wanted, what to do. No traceback.

`BadInput` (exit code 2): the command cannot mean anything as given. `ModelFailed` (exit code 1): the model file raised,
and the line of it that did is named. A file that cannot be read or
written is named with what the system says (exit code 2). `BRINGUP_TRACEBACK=1` shows the whole traceback of each.
"""

import os
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

LIBRARIES = {"site-packages", "ttnn_emulator", "contextlib.py"}


class BringupError(Exception):
    """A message for the user; `code` is the exit code."""

    code = 1

    def __init__(self, problem, got=None, want=None, hint=None):
        rows = [("got", got), ("want", want), ("hint", hint)]
        super().__init__("\n".join([str(problem)] + [f"  {name:<6} {text}" for name, text in rows if text is not None]))

    def followed_by(self, command):
        """The same error, whose last line is what to type next."""
        return type(self)(f"{self}\n  next   {command}")


class BadInput(BringupError):
    code = 2


class ModelFailed(BringupError):
    code = 1


def where(error, path=None):
    """`file:line` of the deepest frame of `path` in the error's traceback; else the deepest outside the libraries."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown(error.filename)}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if path and Path(f.filename) == Path(path).resolve()]
    near = [f for f in frames if not LIBRARIES & set(Path(f.filename).parts)]
    if not frames:
        return shown(path) if path else "?"
    frame = (own or near or frames)[-1]
    return f"{shown(frame.filename)}:{frame.lineno}"


def shown(path):
    """A path as the user would type it."""
    path = Path(path)
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@contextmanager
def blame(path, doing):
    """Turn what a model file raises while `doing` into `ModelFailed` that names its line; our own errors pass."""
    try:
        yield
    except BringupError:
        raise
    except Exception as error:
        raise ModelFailed(f"{where(error, path)}: {type(error).__name__} while {doing}\n{indent(error)}") from error


def indent(error):
    return "\n".join("  " + line for line in (str(error).strip() or "(no message)").splitlines())


def guarded(main, *args):
    """Run `main`; print a `BringupError` for people and return its exit code."""
    try:
        return main(*args) or 0
    except BringupError as error:
        if os.environ.get("BRINGUP_TRACEBACK") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a file that the user named, or a full disk; others are not the user's to mend
        if error.filename is None or os.environ.get("BRINGUP_TRACEBACK") == "1":
            raise
        print(f"error: {shown(error.filename)}: {error.strerror}", file=sys.stderr)
        return 2
