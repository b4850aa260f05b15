"""The command line's parser and the types of its values: what is wrong is refused in one line, with exit code 2."""

import argparse
from pathlib import Path

from bringup.errors import printable

LARGEST = 2**31 - 1  # positions and ids are int32 on the device


class Parser(argparse.ArgumentParser):
    """Shows a docstring as it is, and of an error the error alone."""

    def __init__(self, **options):
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter} | options)

    def error(self, message):
        self.exit(2, f"error: {printable(message)}\n  hint   {self.prog} --help\n")


def whole(least=1, most=LARGEST):
    """A whole number from `least` to `most`."""

    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            want = f"at least {least}" if most == LARGEST else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"{_cut(text)}, where a whole number is wanted, {want}")
        return value

    return parse


positive = whole(1)
natural = whole(0)
seed = whole(0, 2**63 - 1)  # what a torch.Generator takes
users = whole(1, 32)  # a decode tile has 32 rows, one for each
board = whole(0, 255)


def number(low, high, low_itself=True):
    """A finite number from `low` to `high`."""

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (low <= value if low_itself else low < value) or not value <= high:
            want = f"a number {'from' if low_itself else 'above'} {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{_cut(text)}, where {want} is wanted")
        return value

    return parse


def text(value):
    """Text that can be encoded: a byte that is no UTF-8 comes from the command line as half of a pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{_cut(value)} is not UTF-8") from None
    return value


def name(value):
    """Text that is not empty: a path, an id, a list."""
    if not value.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text(value)


def folder(value):
    """A path with its ~ resolved; empty where the default is meant."""
    try:
        return str(Path(value).expanduser()) if value else ""
    except RuntimeError as error:  # ~ of somebody who is not here
        raise argparse.ArgumentTypeError(f"{_cut(value)}: {error}") from None


def _cut(value):
    return ascii(value) if len(value) <= 60 else ascii(value[:60]) + "..."
