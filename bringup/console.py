"""Progress for people on stderr, so that stdout stays the result."""

from contextlib import contextmanager


@contextmanager
def progress(text, total):
    """A bar that advances by one per call of what it yields."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=total)
        yield lambda: bar.advance(task)


def mib(n_bytes):
    return f"{n_bytes / 2**20:,.1f} MiB"
