"""The checklist on the screen while it runs: a live table on a terminal, plain lines elsewhere."""

import re
import sys
from contextlib import contextmanager

from bringup import console
from bringup.checks.outcome import FAIL, NOT_BUILT, PASS, SKIPPED
from bringup.errors import printable

MARKS = {PASS: "green", FAIL: "bold red", SKIPPED: "yellow", None: "cyan"}
RAISED = re.compile(r"(?P<place>\S+:\d+: \w+)(?: while [^\n]*|: (?P<message>.*))")


@contextmanager
def watched(total):
    """Yields a `watch` for `checklist.run`."""
    screen = console.screen(stderr=True)
    if not screen.is_terminal:
        yield line
        return
    from rich.live import Live

    shown = []
    with Live(console=screen, refresh_per_second=4) as live:

        def watch(results):
            shown[:] = results
            live.update(table(shown, total))

        def progress(text, done, whole):
            live.update(table(shown, total, f"{text}: {done:.0f} of {whole:.0f}"))

        console.instead = progress  # bars of what the items run would draw into the table
        try:
            yield watch
        finally:
            console.instead = None


def table(results, total, doing=None):
    """The results so far as a rich table; `doing` is what the running item is at."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False, title_justify="left", expand=True)
    for name, style in (("item", ""), ("", ""), ("seconds", "dim"), ("what was found", "")):
        found.add_column(name, style=style, no_wrap=name != "what was found", justify="right" if style else "left")
    for r, summary in zip(results, summaries(results), strict=True):
        status = Text(r["status"] or "running", MARKS[r["status"]])
        seconds = "" if r["seconds"] is None else f"{r['seconds']:.1f}"
        found.add_row(r["name"], status, seconds, Text(printable(summary or doing or r["title"])))
    found.caption = f"{sum(r['status'] is not None for r in results)} of {total}"
    return found


def line(results):
    """One line to stderr as an item ends."""
    r = results[-1]
    if r["status"] is not None:
        summary = summaries(results)[-1]
        text = f"{r['name']:<16} {r['status']:<8} {r['seconds']:5.1f} s  {printable(summary)}"
        print(text, file=sys.stderr, flush=True)


def summaries(results):
    """The summary of each result so far, for people: one cause is told once, then by where it was told."""
    told, found = {}, []
    for r in results:
        summary = r.get("summary")
        if summary is None or r["status"] == PASS:
            found.append(summary)
            continue
        if summary.startswith(NOT_BUILT):
            found.append(NOT_BUILT)
            continue
        cause, place = summary, summary.partition(": ")[0]
        if raised := RAISED.fullmatch(summary):  # "while" it did what, and then its message as evidence
            place = raised["place"]
            cause = place, (raised["message"] or "".join(r["evidence"][:1])).strip()
        if cause in told and r["status"] == FAIL:
            summary = f"as {told[cause]}" + (f": {place}" if place != summary else "")
        else:
            told[cause] = r["name"]
        found.append(summary)
    return found


def text(check):
    """The whole check for people: every item that did not pass with its evidence, then the verdict."""
    lines, told = [], set()
    for r, summary in zip(check["items"], summaries(check["items"]), strict=True):
        if r["status"] == FAIL:
            evidence = [e for e in r["evidence"][:12] if e not in told]
            told |= {*evidence, r["summary"]}
            lines += [f"FAIL {r['name']}: {summary}"] + [f"     {e}" for e in evidence]
            lines += [f"     hint: {r['hint']}"] if r["hint"] else []
        elif r["status"] == SKIPPED:
            lines.append(f"skipped {r['name']}: {summary}")
        else:
            lines += [f"{r['name']}: {e}" for e in r["evidence"] if e.startswith("warning: ")]
    count = {s: sum(r["status"] == s for r in check["items"]) for s in (PASS, FAIL, SKIPPED)}
    lines.append(
        f"{check['verdict'].upper()}: {count[PASS]} passed, {count[FAIL]} failed, {count[SKIPPED]} skipped, "
        f"in {check['seconds']:.0f} s"
    )
    return printable("\n".join(lines))
