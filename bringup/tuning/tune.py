"""Chooses formats, fidelities, programs and cores of an optimised file: the fastest, by prediction, that holds a bound.

bringup tune models/meta-llama/Llama-3.2-1B/n150/optimized/model.py --model checkpoints/tiny-llama
bringup tune MODEL_PY --system p150 --model FILE.gguf --bound-top1 0.5 --budget 60 --write

Every candidate is built and run by shapes at its true widths; its time is predicted (a prompt of 128 tokens and 100
tokens after it). Accuracy is that of a checkpoint over a text, on the emulator, held against the functional file
beside: the top-1 may be less by --bound-top1 points. The chosen one is run whole, and once more with `exact` numerics.
Nothing is measured on a board. What each point has shown is a file in OUT/points: the same command goes on after an
interruption.
"""

import json
import shutil
import time
from pathlib import Path

from bringup import arguments, spread
from bringup.backends import systems
from bringup.errors import BadInput, shown
from bringup.files import plain, writable, write_json

HELP = "formats, fidelities and programs of an optimised file: the fastest, by prediction, within a bound of accuracy"
CHOICES = "choices.json"


def add_arguments(parser):
    parser.add_argument("model_py", type=arguments.name, metavar="MODEL_PY",
                        help="models/<org>/<model>/<system>/optimized/model.py")  # fmt: skip
    parser.add_argument("--system", choices=systems.NAMES, help="default: as the path says")
    parser.add_argument("--model", type=arguments.name, metavar="DIR_OR_ID",
                        help="checkpoint for the accuracy (default: that of results/)")  # fmt: skip
    parser.add_argument("--config", type=arguments.name, metavar="HF_ID_OR_CONFIG",
                        help="for the time (default: the path's, else the checkpoint's)")  # fmt: skip
    parser.add_argument("--bound-top1", type=arguments.number(0, 100), default=1.0, metavar="POINTS",
                        help="below the functional file's top-1 at most (default: %(default)s)")  # fmt: skip
    parser.add_argument("--budget", type=arguments.number(0, 10000), default=30.0, metavar="MINUTES",
                        help="search no longer (default: %(default)s)")  # fmt: skip
    parser.add_argument("--text_file", type=arguments.name, default="prompts/prose.txt", metavar="FILE",
                        help="default: %(default)s")  # fmt: skip
    parser.add_argument("--max_new_tokens", type=arguments.positive, default=1024, metavar="N",
                        help="positions compared at most (default: %(default)s)")  # fmt: skip
    parser.add_argument("--cache_dir", default="", type=arguments.folder, metavar="DIR",
                        help="where references are kept")  # fmt: skip
    spread.add_arguments(parser, "points")
    parser.add_argument("--out", type=arguments.name, metavar="DIR", help="default: sweeps/<model>-<system>-tune")
    parser.add_argument("--resume", default=True, action="store_true", help="go on with what OUT has (it always does)")
    parser.add_argument("--afresh", dest="resume", action="store_false", help="throw away what OUT/points has")
    parser.add_argument("--write", action="store_true", help=f"put the chosen {CHOICES} beside MODEL_PY too")
    parser.add_argument("--json", action="store_true", help="print the record as one JSON line instead")


def run(args):
    """The exit code: 1 where nothing is within the bound."""
    from bringup.console import quiet_libraries
    from bringup.tuning import search, tune_results

    quiet_libraries()
    spread.check(args)
    started = time.monotonic()
    lab, start, system = prepare(args)
    lab.tell(f"{shown(lab.common.model_py)} on {system}; results in {shown(lab.out)}")
    found = search.search(lab, start, system, args.bound_top1)
    record = tune_results.record(lab, found, start, args.bound_top1, time.monotonic() - started)
    paths = [write_json(lab.out / "tune.json", record), *tune_results.draw(record, lab.out)]
    if found.chosen is not None:
        paths.append(write_json(lab.out / CHOICES, found.chosen))
        if args.write:
            paths.append(write_json(Path(lab.common.model_py).with_name(CHOICES), found.chosen))
    if args.json:
        print(json.dumps(plain(record)))
    else:
        print("\n".join(tune_results.said(record)))
        print(" ".join(["wrote", *map(shown, paths)]))
    return 0 if found.chosen is not None else 1


def prepare(args):
    """(`Lab`, the file's own choices as data, the system)."""
    from bringup import backends
    from bringup.backends import model_files
    from bringup.tuning import sweep, trials

    file = model_files.describe(args.model_py)
    if not trials.functional(file.path).is_file():
        raise BadInput("no functional file to be held against", got=shown(trials.functional(file.path)),
                       want="models/<org>/<model>/<system>/optimized/model.py beside functional/")  # fmt: skip
    common = sweep.Common(
        model_py=str(file.path.resolve()), model=args.model or checkpoint_of(file), config=args.config,
        system=args.system or file.system or "n150", backend="emulator", numerics="fast", prompt_file=None,
        max_new_tokens=args.max_new_tokens, cache_dir=args.cache_dir, text_file=args.text_file, prompt_tokens=32,
        one_pass=True,
    )  # fmt: skip
    job = sweep.job_of(common)
    job.reference()  # once, before the points need it, and before the model file is loaded
    own = getattr(job.model_file.module, "PRECISION", None)
    if not hasattr(own, "as_data"):
        raise BadInput(f"{shown(file.path)} chooses nothing", want="PRECISION = Choices.read(...), as optimised files")
    name = f"{(file.hf_id or job.source.name).rpartition('/')[2]}-{job.system.name}-tune"
    out = Path(args.out or f"sweeps/{name}")
    writable(out, folder=True)
    if not args.resume:
        shutil.rmtree(out / "points", ignore_errors=True)
    backends.activate("emulator", job.system)
    lab = trials.Lab(
        common, sweep.planned_config(job, common), out, common.digest(job), args.jobs, args.engine,
        time.monotonic() + 60 * args.budget, (lambda *a, **k: None) if args.json else print,
    )  # fmt: skip
    return lab, own.as_data(), job.system


def checkpoint_of(file):
    """The checkpoint that the result in results/ was measured with; None where there is none."""
    from bringup.checks import every

    return every.checkpoint_of(file.path) if file.hf_id else None
