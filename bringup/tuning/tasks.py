"""The tasks that people quote, by lm-evaluation-harness: HF and the device side by side.

bringup tasks MODEL_PY --model DIR --tasks arc_easy,piqa --limit 100
bringup tasks MODEL_PY --model DIR --tasks mine --include my-tasks --json     # local task files: no network

lm_eval's own code poses the questions and counts the answers (pip install 'ttnn-bringup[tasks]'); the HF model, in
float32, and the model file answer the same ones, and what they differ by is paired by question, with its 95 % interval.
Each task of each of the two leaves a file in OUT/points, and each answer one line in a cache beside it: what was
interrupted goes on where it was. Several tasks run through joblib, as a sweep's points do.
"""

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from bringup import arguments, backends, spread
from bringup.backends import systems
from bringup.errors import BadInput, BringupError, shown
from bringup.files import plain, writable, write_json

HELP = "tasks of lm-evaluation-harness, on the HF model and on the device"
SIDES = ("hf", "device")


def add_arguments(parser):
    parser.add_argument("model_py", type=arguments.name, metavar="MODEL_PY",
                        help="models/<org>/<model>/<system>/functional/model.py")  # fmt: skip
    parser.add_argument("--model", type=arguments.name, metavar="DIR_OR_ID",
                        help="checkpoint directory, GGUF file or hub id (default: as the path says)")  # fmt: skip
    parser.add_argument("--tasks", type=arguments.name, required=True, metavar="A,B", help="names of tasks or groups")
    parser.add_argument("--limit", type=arguments.positive, metavar="N", help="questions of each task (default: all)")
    parser.add_argument("--include", type=arguments.name, metavar="DIR", help="a folder of your own task files (YAML)")
    parser.add_argument("--few_shot", type=arguments.natural, metavar="N",
                        help="examples before each question (default: as the task says)")  # fmt: skip
    parser.add_argument("--chat", action="store_true", help="questions in the checkpoint's chat template")
    parser.add_argument("--system", choices=systems.NAMES, help="default: as the path says")
    backends.add_arguments(parser)
    parser.add_argument("--max_seq_len", type=arguments.positive, metavar="N",
                        help="cache length (default: 1024, or all positions of the model)")  # fmt: skip
    parser.add_argument("--hf-dtype", default="float32", choices=("float32", "bfloat16"), help="the HF model's dtype")
    parser.add_argument("--cache_dir", default="", type=arguments.folder, metavar="DIR",
                        help="of large random weights and converted checkpoints")  # fmt: skip
    parser.add_argument("--seed", type=arguments.seed, default=0, metavar="N", help="of the examples before questions")
    spread.add_arguments(parser, "tasks")
    parser.add_argument("--out", type=arguments.name, metavar="DIR", help="default: tasks/<model>-<system>")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line instead")


@dataclass(frozen=True)
class Common:
    """What all tasks share."""

    model_py: str
    model: str | None
    limit: int | None
    include: str | None
    few_shot: int | None
    chat: bool
    system: str | None
    backend: str | None
    numerics: str | None
    max_seq_len: int | None
    hf_dtype: str
    cache_dir: str
    seed: int

    def job(self, side):
        """The evaluation's `Job`; that of HF reads no model file and opens no device."""
        from bringup.checkpoints import sources
        from bringup.evaluation.run import Job, Settings

        names = {f.name for f in fields(Settings)} - {"max_seq_len", "chat"}
        given = {k: v for k, v in asdict(self).items() if k in names}
        given["model"], length = self.model or _id(self), self.max_seq_len
        if length is None:
            source = sources.find_source(given["model"], cache_dir=self.cache_dir or None)
            length = min(1024, sources.load_config(source).max_position_embeddings)
        prompt = {"prompt": "A", "max_new_tokens": 1, "three_way": False}
        job = Job(Settings(**given, **prompt, max_seq_len=length), hf_only=side == "hf")
        if job.tokenizer is None:
            raise BadInput("tasks need a tokenizer", got=job.source.name, want="a checkpoint that has one")
        return job

    def digest(self, job, side):
        """Changes with all that an answer depends on; HF's answers do not depend on the model file."""
        import lm_eval
        import torch
        import transformers

        what = {
            "settings": {k: v for k, v in asdict(self).items() if k not in ("cache_dir", "model_py", "model")},
            "weights": job.source.fingerprint(job.cache_dir),
            "length": job.max_seq_len,
            "tasks": _files(self.include),
            "versions": [lm_eval.__version__, transformers.__version__, torch.__version__],
        }
        if side == "device":
            from bringup.evaluation.run import numerics_in_use

            what["code"] = spread.code(Path(self.model_py))
            what["device"] = [job.system.name, job.activation.name, numerics_in_use(job.activation)]
        else:
            for name in ("system", "backend", "numerics"):
                what["settings"].pop(name)
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _id(common):
    from bringup.backends import model_files

    found = model_files.describe(common.model_py).hf_id
    if found is None:
        raise BadInput("which checkpoint?", want="--model DIR_OR_HF_ID, or a path like " + model_files.PATH_RULE)
    return found


def _files(folder):
    """A digest of a folder of task files, their code and data included."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")) if folder else ():
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def run(args):
    from bringup.console import quiet_libraries

    quiet_libraries()
    spread.check(args)
    names = list(dict.fromkeys(name.strip() for name in args.tasks.split(",") if name.strip()))
    if not names:
        raise BadInput("which tasks?", got=repr(args.tasks), want="names with commas between")
    if args.include is not None and not Path(args.include).is_dir():
        raise BadInput("--include is no folder", got=args.include)
    _require()
    common = Common(**{f.name: getattr(args, f.name) for f in fields(Common)})
    with _quiet():
        from bringup.evaluation import tasks

        tasks.find(names, common.include)
    jobs = {side: common.job(side) for side in SIDES}
    device = jobs["device"]
    if not device.activation.values:
        raise BadInput("tasks need values", got=f"backend {device.activation.name}", want="emulator or silicon")
    name = (device.model_file.hf_id or device.source.name).rpartition("/")[2]
    out = Path(args.out or f"tasks/{name}-{device.system.name}")
    writable(out, folder=True)
    files, work = {}, {}
    for side, job in jobs.items():
        digest = common.digest(job, side)
        for task in names:
            files[side, task] = path = out / "points" / f"{task.replace('/', '_')}-{side}-{digest}.json"
            work[path] = (common, side, task)
    if not args.json:
        print(device.activation)
        print(device.describe().splitlines()[0])
        if device.source.note:
            print(f"weights: {device.source.note}")
        there = sum(path.is_file() for path in work)
        print(f"{len(names)} tasks on HF in {args.hf_dtype} and on the device; {there} of {len(work)} runs are there "
              f"already; results in {shown(out)}", flush=True)  # fmt: skip
    failed = spread.run(write_point, work, args.jobs, args.engine, "tasks")
    if failed:
        (path, why), *_ = failed.items()
        raise BringupError(f"{len(failed)} of {len(work)} runs did not end; the first, {path.name}:\n{why}")
    found = {key: json.loads(path.read_text()) for key, path in files.items()}
    result = {"format": 1, "model_py": shown(args.model_py), "checkpoint": device.source.name, "tasks": {},
              "system": device.system.name, "backend": device.activation.name, "limit": args.limit}  # fmt: skip
    for task in names:
        result["tasks"] |= compared(found["hf", task], found["device", task])
    write_json(out / "tasks.json", result)
    if args.json:
        print(json.dumps(plain(result)))
        return
    print("\n".join(table(result)))
    print(f"wrote {shown(out / 'tasks.json')}")


def _require():
    from importlib.util import find_spec

    if find_spec("lm_eval") is None:
        raise BadInput("tasks are lm_eval's, which is not installed", hint="pip install 'ttnn-bringup[tasks]'")


def _quiet():
    """lm_eval and datasets log and draw progress of their own."""
    import logging

    import datasets

    from bringup.console import no_bars

    for name in ("lm_eval", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    return no_bars()


def write_point(common, side, task, path):
    write_json(path, measure(common, side, task, str(path.with_suffix(".answers"))))


def measure(common, side, task, cache):
    """One task on HF or on the device, as plain data; `cache` is where its answers are kept as they come."""
    import torch

    from bringup.checkpoints.compute_dtype import computing_in
    from bringup.console import quiet_libraries
    from bringup.errors import blame

    quiet_libraries()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        from bringup.evaluation import tasks

        job = common.job(side)
        manager = tasks.find([task], common.include)
        if side == "hf":
            model = job.hf_model()
            stack.enter_context(computing_in(model, getattr(torch, common.hf_dtype)))
        else:
            model, _ = stack.enter_context(job.open_model())
            stack.enter_context(blame(job.model_file.path, f"answering {task}"))
        backend = tasks.Backend(model, job.tokenizer, job.max_seq_len, f"{task}, {side}")
        Path(cache).parent.mkdir(parents=True, exist_ok=True)
        found = tasks.evaluate(
            backend,
            manager,
            task,
            limit=common.limit,
            few_shot=common.few_shot,
            chat=common.chat,
            seed=common.seed,
            cache=cache,
        )
        return {"tasks": found, "contexts_cut": backend.cut}


def compared(hf, device):
    """{task: n, and by metric both values with their standard errors, the paired difference and its interval}."""
    from bringup.evaluation.metrics import paired_interval

    found = {}
    for task, mine in device["tasks"].items():
        theirs = hf["tasks"][task]
        rows = {}
        for key, value in mine["metrics"].items():
            metric, _, filtered = key.partition(",")
            a, b = ({d["id"]: d[metric] for d in side["documents"] if d["filter"] == filtered and metric in d}
                    for side in (theirs, mine))  # fmt: skip
            shared = sorted(a.keys() & b.keys())
            differences = [float(b[i]) - float(a[i]) for i in shared]
            rows[key] = {
                "hf": theirs["metrics"][key],
                "device": value,
                "difference": paired_interval(differences) if differences else None,
                "changed": sum(d != 0 for d in differences) if differences else None,
            }
        found[task] = {"n": mine["n"], "version": mine["version"], "metrics": rows}
    return found


def table(result):
    """Lines for people."""
    lines = [f"{'task':<24} {'metric':<22} {'n':>5} {'HF':>16} {'device':>16}  device - HF, paired, 95 %"]
    for task, found in result["tasks"].items():
        for key, row in found["metrics"].items():
            metric = key.removesuffix(",none")
            cells = f"{task:<24} {metric:<22} {found['n']:>5} {_value(row['hf']):>16} {_value(row['device']):>16}"
            lines.append(f"{cells}  {_difference(row)}")
    return lines


def _value(pair):
    value, error = pair
    return f"{value:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def _difference(row):
    if row["difference"] is None:
        return "not by question"
    mean, low, high = row["difference"]
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f}), {row['changed']} answers differ"
