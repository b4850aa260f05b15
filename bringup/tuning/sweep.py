"""Accuracy against predicted speed and memory, over the dtypes and compute settings of a model file.

bringup sweep models/meta-llama/Llama-3.2-1B/n150/functional/model.py --model checkpoints/tiny-llama
bringup sweep my/model.py --model DIR --mlp bfp8,bfp4 --fidelity HiFi2 --jobs 4 --out sweeps/mine

Each point is built with another `precision`: teacher-forced on the emulator with the checkpoint for accuracy, and run
by shapes alone at the model's true configuration for memory and speed (predicted, not measured). A point's result is a
file in OUT/points; what is there is not run again, so that an interrupted sweep loses the points it was at. Points run
in processes of this machine, or on a Ray cluster (--engine ray; OUT is then on a shared file system).
"""

import hashlib
import itertools
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bringup import arguments, backends, spread
from bringup.backends import library_warnings, systems
from bringup.errors import BadInput, BringupError, shown
from bringup.files import writable, write_json
from bringup.planning import kernels
from bringup.tuning import results as sweep_results

LIBRARY = "library"  # what the library does where no compute config is given, the destination included
HELP = "accuracy against predicted speed and memory over dtypes and compute settings"
FIDELITIES = ("LoFi", "HiFi2", "HiFi3", "HiFi4", LIBRARY)
AXES = {
    "attention": "bf16,bfp8",
    "mlp": "bf16,bfp8,bfp4",
    "head": "bf16,bfp8",
    "fidelity": "HiFi2,HiFi3",
    "destination": "fp32,bf16",
}
CONTEXT, PROMPT = 256, 128  # of the run by shapes


def add_arguments(parser):
    parser.add_argument("model_py", type=arguments.name, metavar="MODEL_PY",
                        help="models/<org>/<model>/<system>/functional/model.py")  # fmt: skip
    parser.add_argument("--model", type=arguments.name, metavar="DIR_OR_ID",
                        help="checkpoint for the accuracy, as of eval (default: as the path says)")  # fmt: skip
    parser.add_argument(
        "--config",
        type=arguments.name,
        metavar="HF_ID_OR_CONFIG",
        help="for speed and memory (default: the path's, where it is known; else the checkpoint's)",
    )
    parser.add_argument("--system", choices=systems.NAMES, help="default: as the path says")
    backends.add_arguments(parser)
    for axis, values in AXES.items():
        parser.add_argument(f"--{axis}", type=arguments.name, default=values, metavar="A,B",
                            help="default: %(default)s")  # fmt: skip
    parser.add_argument("--prompt_file", type=arguments.name, metavar="FILE",
                        help="a text file (default: prompts/long.txt)")  # fmt: skip
    parser.add_argument("--max_new_tokens", type=arguments.positive, default=64, metavar="N",
                        help="tokens compared (default: 64)")  # fmt: skip
    parser.add_argument("--cache_dir", default="", type=arguments.folder, metavar="DIR",
                        help="where references are kept")  # fmt: skip
    spread.add_arguments(parser, "points")
    parser.add_argument("--out", type=arguments.name, metavar="DIR", help="default: sweeps/<model>-<system>")


@dataclass(frozen=True)
class Point:
    """One choice: dtypes per group of weights, fidelity of all products, format of the destination registers."""

    attention: str
    mlp: str
    head: str
    fidelity: str
    destination: str

    @property
    def name(self):
        return "-".join(asdict(self).values())


@dataclass(frozen=True)
class Common:
    """What all points of a sweep share."""

    model_py: str
    model: str | None
    config: str | None
    system: str
    backend: str | None
    numerics: str | None
    prompt_file: str | None
    max_new_tokens: int
    cache_dir: str
    text_file: str | None = None
    prompt_tokens: int | None = None
    one_pass: bool = False
    three_way: bool = False

    def digest(self, job):
        """Changes with all that a point's result depends on: settings, weights, prompt, configuration, and code."""
        from bringup.evaluation.run import numerics_in_use

        what = {
            "settings": {k: v for k, v in asdict(self).items() if k != "cache_dir"},
            "weights": job.source.fingerprint(job.cache_dir),
            "prompt": [job.prompt_ids, job.given_tokens],
            "config": planned_config(job, self).to_dict(),
            "backend": [job.activation.name, numerics_in_use(job.activation)],  # the environment may choose them
            "code": spread.code(Path(self.model_py)),
            "constants": kernels.CONSTANTS.read_text(),
        }
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:12]


def run(args):
    from bringup.console import quiet_libraries

    quiet_libraries()
    points = grid(args)
    spread.check(args)
    job, common = prepare(args)
    out = Path(args.out or f"sweeps/{_model_name(job)}-{job.system.name}")
    print(job.activation)
    print(f"{len(points)} points of {shown(common.model_py)} on {job.system}; results in {shown(out)}", flush=True)
    writable(out, folder=True)
    digest = common.digest(job)
    files = {point: out / "points" / f"{point.name}-{digest}.json" for point in points}
    todo = [point for point in points if not files[point].is_file()]
    if len(todo) < len(points):
        print(f"{len(points) - len(todo)} points are there already")
    tasks = {files[point]: (common, point) for point in todo}
    failed = spread.run(write_point, tasks, args.jobs, args.engine, "sweep")
    rows = [asdict(point) | found(files[point], failed) for point in points]
    sweep_results.mark_pareto(rows)
    result = {"format": 1, "common": asdict(common) | {"model_py": shown(common.model_py)}, "rows": rows}
    write_json(out / "sweep.json", result)
    sweep_results.show(rows, AXES)
    pictures = sweep_results.draw(rows, out, f"{_model_name(job)} on {job.system.name}")
    print(" ".join(["wrote", shown(out / "sweep.json"), *map(shown, pictures)]))


def found(path, failed):
    return {"refused": failed[path]} if path in failed else json.loads(path.read_text())


def grid(args):
    from bringup.planning.formats import dtype_name

    allowed = {"fidelity": FIDELITIES, "destination": ("fp32", "bf16")}
    values = {}
    for axis in AXES:
        values[axis] = [v.strip() for v in getattr(args, axis).split(",")]
        if axis in allowed:
            bad = [v for v in values[axis] if v not in allowed[axis]]
            if bad:
                raise BadInput(f"--{axis} has no such value", got=bad[0], want="some of " + ", ".join(allowed[axis]))
        else:
            values[axis] = list(map(dtype_name, values[axis]))
    choices = [Point(*choice) for choice in itertools.product(*(dict.fromkeys(v) for v in values.values()))]
    return list(dict.fromkeys(replace(p, destination="-") if p.fidelity == LIBRARY else p for p in choices))


def prepare(args):
    """The evaluation's `Job`, which checks everything that is checked before anything runs, and the `Common`."""
    from bringup.planning.spec_run import precision_option

    names = Common.__dataclass_fields__
    common = Common(**{n: v for n, v in vars(args).items() if n in names})
    job = job_of(common)
    job.reference()  # once, before the points need it, and before the model file is loaded
    precision_option(job.model_file, None, {"exact_exp": True})  # raises where the file has one precision
    path = str(job.model_file.path.resolve())
    return job, Common(**asdict(common) | {"model_py": path, "system": job.system.name})


def job_of(common):
    from bringup.evaluation.run import Job, Settings

    names = Settings.__dataclass_fields__
    return Job(Settings(**{n: v for n, v in asdict(common).items() if n in names}))


def _model_name(job):
    return (job.model_file.hf_id or job.model_file.path.resolve().parent.name).rpartition("/")[2]


def planned_config(job, common):
    """The configuration whose memory and speed count: as asked; the known one of the path; else the checkpoint's."""
    from bringup.checkpoints import known
    from bringup.planning.plan import find_config

    named = common.config or (job.model_file.hf_id if job.model_file.hf_id in known.known_ids() else None)
    return find_config(named)[1] if named else job.config


# Points --------------------------------------------------------------------------------------------------------------


def write_point(common, point, path):
    write_json(path, measure(common, point))


def measure(common, point):
    """One point as plain data: {"refused": why} or memory, predicted speed and accuracy."""
    from bringup.console import quiet_libraries

    quiet_libraries()
    job = job_of(common)
    with library_warnings.collected() as warnings:
        try:
            return planned(job, common, point) | accuracy(job, point) | {"warnings": warnings}
        except BringupError as error:
            return {"refused": str(error)}


def settings_of(point):
    """The fields of `blocks.Precision` that are no dtype."""
    from bringup.blocks.precision import compute_config

    if point.fidelity == LIBRARY:
        return {"linear": None, "norm": None, "sdpa": None, "exact_exp": False}
    config = compute_config(point.fidelity, fp32_dest=point.destination == "fp32")
    return {"linear": config, "norm": config, "sdpa": config}


def _formats(point):
    from bringup.planning.formats import Formats

    return Formats(point.attention, point.mlp, point.head)


def planned(job, common, point):
    """Bytes of a chip (a cache of 32 rows), longest contexts and predicted speed at the true configuration."""
    from bringup.planning.memory import Memory
    from bringup.planning.spec_run import spec_run
    from bringup.planning.wiring import TOKEN_ON_DEVICE, speeds

    config = planned_config(job, common)
    found = spec_run(
        job.model_file.path,
        config,
        job.system,
        max_seq_len=CONTEXT,
        prompt=PROMPT,
        formats=_formats(point),
        settings=settings_of(point),
    )
    predicted = speeds(found, job.system, context=PROMPT + 32)[TOKEN_ON_DEVICE]
    memory = Memory(config, job.system, _formats(point))
    return {
        "weights_bytes": sum(memory.weights.values()),
        "needed_bytes": memory.needed(CONTEXT),
        "longest_context": memory.longest_contexts(),
        "predicted": predicted.as_dict(),
    }


def accuracy(job, point):
    """The figures of teacher forcing with the checkpoint."""
    result = teacher_forced(job, point)
    keep = ("n", "top1", "top1_interval", "top5", "top5_interval", "kl_mean", "kl_worst", "rel_l2", "pcc")
    return {"accuracy": {name: result[name] for name in keep}, "seconds": result["seconds_total"]}


def teacher_forced(job, point):
    """`Job.measure` of the model built as the point says."""
    from bringup.planning.spec_run import precision_option

    option = precision_option(job.model_file, _formats(point), settings_of(point))
    return job.measure_built([job.reference()], **option)[0]
