"""Progress for people on stderr, so that stdout stays the result: a bar on a terminal, else a line now and then."""

import sys
import threading
import time
from contextlib import contextmanager

SECONDS_PER_LINE = 15
#: Called with (text, done, total) in place of bars and lines, while something else has the screen.
instead = None


@contextmanager
def progress(text, total):
    """Yields `advance(by=1)`, to be called as the work goes on."""
    if instead is not None:
        yield _Told(text, total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = screen(stderr=True)
    if not console.is_terminal:
        yield _Lines(text, total)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda by=1: bar.advance(task, by)


def screen(width=None, **options):
    """A rich console that prints text as it is: no markup, no emoji names, no colours of its own.

    `width` is for where there is no terminal to tell it.
    """
    from rich.console import Console

    found = Console(markup=False, emoji=False, highlight=False, **options)
    if width and not found.is_terminal:
        found.width = width
    return found


class _Told:
    """Hands the progress on to `instead`."""

    def __init__(self, text, total):
        self.text, self.total, self.done = text, total, 0

    def __call__(self, by=1):
        self.done += by
        if instead is not None:
            instead(self.text, self.done, self.total)


class _Lines:
    """`text: 12 of 32, about 40 s left`, a line every SECONDS_PER_LINE; nothing where the work is done sooner."""

    def __init__(self, text, total):
        self.text, self.total, self.done = text, total, 0
        self.start = self.last = time.monotonic()

    def __call__(self, by=1):
        self.done += by
        now = time.monotonic()
        if now - self.last >= SECONDS_PER_LINE and self.done < self.total:
            self.last = now
            left = duration((now - self.start) * (self.total - self.done) / self.done)
            print(f"{self.text}: {self.done:.0f} of {self.total:.0f}, about {left} left", file=sys.stderr, flush=True)


@contextmanager
def patience(text, seconds=3):
    """Says on stderr what is being done, should it take longer than `seconds`."""
    timer = threading.Timer(seconds, print, [text], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def no_bars():
    """Inside, libraries that draw progress with tqdm draw none."""
    from functools import partialmethod

    from tqdm import tqdm

    drawn = tqdm.__init__
    tqdm.__init__ = partialmethod(drawn, disable=True)
    try:
        yield
    finally:
        tqdm.__init__ = drawn


def duration(seconds):
    """As people say it: 40 s, 3 min, 1.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def mib(n_bytes):
    return f"{n_bytes / 2**20:,.1f} MiB"


def gib(n_bytes):
    return f"{n_bytes / 2**30:,.1f} GiB"


def quiet_libraries():
    """Progress is ours; HF's advice is for people who call HF themselves."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
