"""The checklist: ten items in the guide's order, each a function of the `Context` that returns an `Outcome`; an
optimised file has one more.

A new item is a function in a file of its family and a line in ITEMS.
"""

import datetime
import time
from dataclasses import dataclass

from bringup.backends import library_warnings
from bringup.checks import accuracy, layers, modules, multi_device, optimized, performance, reference
from bringup.checks.context import Context
from bringup.checks.outcome import FAIL, NOT_BUILT, PASS, SKIPPED, Outcome
from bringup.errors import BadInput, BringupError, indent, where
from bringup.files import plain


@dataclass(frozen=True)
class Item:
    """One line of the checklist: `ask(context)` answers it."""

    name: str
    title: str
    ask: object


ITEMS = (
    Item("baseline", "The HF model generates sane text", reference.baseline),
    Item("decode_modules", "Every block agrees with HF's, decode", modules.decode_modules),
    Item("decoder_layer", "A whole decoder layer agrees", modules.decoder_layer),
    Item("full_decode", "The whole model agrees, token by token", accuracy.full_decode),
    Item("teacher_forcing", "Top-1 and top-5 on the reference's tokens", accuracy.teacher_forcing),
    Item("generation", "Its own text beside HF's", accuracy.generation),
    Item("prefill", "A prompt in one pass agrees with decode", accuracy.prefill),
    Item("end_to_end", "HF's generate() drives it", accuracy.end_to_end),
    Item("performance", "What makes it fast is there", performance.performance),
    Item("multi_device", "Other meshes give the same", multi_device.multi_device),
)
NAMES = tuple(item.name for item in ITEMS)
OPTIMIZED = Item("optimized", "No worse than the functional file, and faster", optimized.optimized)


def run(job, *, quick=False, items=None, build=None, watch=None):
    """The record of `run_with_context` alone."""
    return run_with_context(job, quick=quick, items=items, build=build, watch=watch)[0]


def run_with_context(job, *, quick=False, items=None, build=None, watch=None):
    """Run the checklist on a `Job` (or its `Settings`); the record that check.json holds, and the closed `Context`.

    items   names of those to run (default: all)
    build   a `build_model` in place of the file's: (hf_model, device, max_seq_len) -> model
    watch   called with the list of results so far, before and after each item; a result has status None while it runs
    """
    with Context(job, quick=quick, items=items, build=build) as context:
        return record(context, items, watch), context


def record(context, items=None, watch=None):
    """The record of these items asked in an open `Context`."""
    start, started = time.perf_counter(), datetime.datetime.now(datetime.timezone.utc)
    results = []
    for item in chosen(items, context.job.model_file.path):
        results.append({"name": item.name, "title": item.title, "status": None, "seconds": None})
        if watch:
            watch(results)
        before = time.perf_counter()
        with library_warnings.collected() as given:
            outcome = _answer(item, context)
        told = {line for r in results[:-1] for line in r["evidence"]}
        warned = [line for text in given if (line := f"warning: the library: {text}") not in told]
        results[-1] |= {"status": outcome.status, "seconds": time.perf_counter() - before}
        results[-1] |= {"summary": outcome.summary, "evidence": [*outcome.evidence, *warned], "hint": outcome.hint}
        if watch:
            watch(results)
    bad = any(r["status"] == FAIL for r in results)
    check = {
        "format": 1,
        **context.facts(),
        "started": started.isoformat(timespec="seconds"),
        "seconds": time.perf_counter() - start,
        "verdict": FAIL if bad or all(r["status"] == SKIPPED for r in results) else PASS,
        "items": results,
        **context.found(),
    }
    return plain(check)


def chosen(names, model_py=None):
    """The items of these names, in the checklist's order; all that a file has for None. Without a file, only names that
    no file's checklist has are refused."""
    items = ITEMS if model_py is None or optimized.beside(model_py) is None else (*ITEMS, OPTIMIZED)
    if names is None:
        return items
    known = [item.name for item in (items if model_py else (*ITEMS, OPTIMIZED))]
    if unknown := [n for n in names if n not in known]:
        raise BadInput("no such item", got=", ".join(unknown), want=", ".join(known))
    return [item for item in items if item.name in names]


def _answer(item, context):
    """The item's outcome; what it raises is a fail that names the line of the model file."""
    if context.broken is not None and item.name != "baseline":
        return Outcome(SKIPPED, f"{NOT_BUILT}: {context.broken}")
    try:
        context.hf_alone()
        return item.ask(context)
    except BadInput as error:
        if "reference" not in vars(context):  # HF itself cannot be run: there is nothing to hold a model against
            raise
        first, *rest = str(error).splitlines()
    except BringupError as error:
        first, *rest = str(error).splitlines()
    except (Exception, SystemExit) as error:
        message, *rest = indent(error).splitlines()
        first = f"{where(error, context.job.model_file.path)}: {type(error).__name__}: {message.strip()}"
    return Outcome(FAIL, first, rest + _divergence(item, context))


def _divergence(item, context):
    """Where the model leaves HF, if that can still be found out: it may be why an item raised."""
    if item.name == "baseline" or context.broken is not None:
        return []
    try:
        place, why = layers.first_divergence(context)
    except (Exception, SystemExit):  # the same failure, most likely
        return []
    return [f"{place}: {why}"] if place else []
