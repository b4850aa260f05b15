"""Check a model file against the vendor's library, and the emulator's account of the same run against the library's.

bringup verify models/meta-llama/Llama-3.2-1B/n150/functional/model.py
bringup verify my/model.py --model meta-llama/Llama-3.2-1B --system n300 --layers 4 --lengths 1,31,128

The model is built at its true width with few layers and weights of zeros, prefills prompts of several lengths and
decodes across tile boundaries: once on the real `ttnn` on a mock cluster, once on the emulator, each in a process of
its own. Printed are the ops and the memory of each stage, the first call that the library refuses (with operands, its
words and the line of the model file), and the first place where the two accounts differ.
"""

import json
import os
import re
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from bringup import arguments
from bringup.backends import library_warnings, mock, systems
from bringup.checkpoints.mapped import peak_rss_bytes
from bringup.errors import BadInput, BringupError, guarded, indent, shown, where
from bringup.files import PACKAGES, PROJECT

HELP = "a model file on the vendor's library without a board, and the emulator against it"
LENGTHS = (17, 31, 33, 254)
STEPS = 3
MAX_SEQ_LEN = 256
LAYERS = 2
# What one side logs and the other has no reason to: neither changes a tensor on the device.
QUIET = {"ttnn.to_torch", "ttnn.from_torch on the host", "ttnn.synchronize_device"}
KINDS = ("dram", "l1")


def add_arguments(parser):
    parser.add_argument("model_py", type=arguments.name, help="the model file, or its folder")
    parser.add_argument(
        "--model",
        type=arguments.name,
        help="HF id or directory whose configuration is used (default: what the path says)",
    )
    parser.add_argument("--system", choices=systems.NAMES, help="default: what the path says, then n150")
    parser.add_argument("--layers", type=arguments.natural, default=LAYERS,
                        help=f"layers of the model; 0: all (default: {LAYERS})")  # fmt: skip
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)),
                        help="prompt lengths, each followed by decoding (default: %(default)s)")  # fmt: skip
    parser.add_argument("--steps", type=arguments.natural, default=STEPS,
                        help="tokens decoded after each prompt (default: %(default)s)")  # fmt: skip
    parser.add_argument("--max_seq_len", type=arguments.positive, default=MAX_SEQ_LEN, help="default: %(default)s")
    parser.add_argument("--only", choices=("mock", "emulator"), help="run one side alone, without a comparison")
    parser.add_argument(
        "--python", help="the Python that has the ttnn wheel (default: this one, else that of `make test-ttnn`)"
    )
    parser.add_argument("--timeout", type=arguments.positive, default=1800,
                        help="seconds for each side (default: %(default)s)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line instead")


def run(args):
    from bringup.backends import model_files

    found = model_files.describe(args.model_py)
    model = args.model or found.hf_id
    if model is None:
        raise BadInput(
            "which model is it?", got=shown(found.path), want=f"--model, or a path as in {model_files.PATH_RULE}"
        )
    plan = {
        "path": str(found.path.resolve()),
        "model": model,
        "system": args.system or found.system or "n150",
        "layers": args.layers,
        "lengths": _lengths(args),
        "steps": args.steps,
        "max_seq_len": args.max_seq_len,
    }
    sides = [args.only] if args.only else ["mock", "emulator"]
    python = python_with_wheel(args.python) if "mock" in sides else None
    results = {side: run_side(side, plan, python if side == "mock" else sys.executable, args.timeout) for side in sides}
    verdict = judge(results)
    if args.json:
        print(json.dumps(summary(plan, results, verdict)))
    else:
        print("\n".join(report(plan, results, verdict)))
    return 0 if verdict["passed"] else 1


def python_with_wheel(asked=None):
    """The Python for the library's side: the one asked for, this one, or the one that `make test-ttnn` has made."""
    if asked:
        return asked
    made = PROJECT / ".venv-ttnn/bin/python"
    try:
        mock.wheel()
        return sys.executable
    except BringupError as error:
        if made.exists():
            return str(made)
        hint = "`make test-ttnn` makes an environment with it; or --python PATH of one that has it; or --only emulator"
        raise BadInput(str(error).partition("  hint")[0].rstrip() + f"\n  hint   {hint}") from error


def _lengths(args):
    try:
        lengths = [int(n) for n in args.lengths.split(",")]
    except ValueError:
        raise BadInput("--lengths are numbers with commas between", got=args.lengths) from None
    for n in lengths:
        if n < 1 or n + 1 > args.max_seq_len:
            raise BadInput(
                "a prompt does not fit", got=f"{n} tokens", want=f"1 to {args.max_seq_len - 1} (--max_seq_len)"
            )
    return lengths


# One side, in a child process


def run_side(side, plan, python=sys.executable, timeout=None):
    """What `side` ("mock" or "emulator") logs when the plan is run on it: stages, records, and what failed."""
    with tempfile.TemporaryDirectory(prefix="bringup-verify-") as folder:
        asked, answer = Path(folder) / "plan.json", Path(folder) / "result.json"
        asked.write_text(json.dumps(plan | {"side": side}))
        root = str(PACKAGES)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        log = Path(folder) / "log.txt"
        variables = {"PYTHONPATH": path, "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}
        variables["TT_METAL_LOGGER_FILE"] = str(log)
        child = mock.run_child(["-m", "bringup.backends.verify", asked, answer], timeout, variables, python)
        if answer.exists():
            result = json.loads(answer.read_text())
        else:
            result = {"side": side, "stages": [], "records": [], "failed": None}
        if child.died:
            call = child.last_call or {}
            result["failed"] = {
                "error": child.describe(),
                "line": call.get("line"),
                "call": call.get("call"),
                "op": call.get("op"),
            }
        elif not result["failed"] and not result.get("whole"):  # also where it ended without a word
            _, told, message = child.output.rpartition("error: ")
            message = message.strip() if told else f"the {side} side of verify failed\n{_tail(child.output)}"
            raise (BadInput if child.code == BadInput.code else BringupError)(message)
        if side == "mock" and log.is_file():
            result["warnings"] = library_warnings.read(log.read_text(errors="replace").splitlines())
        return result


def _tail(text, lines=15):
    return "\n".join("  " + line for line in text.strip().splitlines()[-lines:])


def _child(asked, answer):
    """Run the plan in this process and write down what happened; the answer is rewritten after each stage."""
    plan = json.loads(Path(asked).read_text())
    from bringup import backends
    from bringup.backends import model_files
    from bringup.checkpoints import by_layer, known, random_weights, sources
    from bringup.checkpoints.session import Session

    side, system = plan["side"], plan["system"]
    activation = backends.activate(side, system=system)
    result = {"side": side, "ttnn": activation.detail, "stages": [], "records": [], "failed": None}
    source = sources.find_source(plan["model"], random_weights=plan["model"] in known.known_ids())
    config = sources.load_config(source)
    if plan["layers"]:
        config = by_layer.fewer(config, plan["layers"])
    result["layers"] = config.num_hidden_layers
    hf_model = random_weights.zeros(config)
    if side == "mock":
        mock.take_zeros_as_they_are()
    with backends.open_system(system) as device:
        build = model_files.load_model_file(plan["path"], system).build_model
        with _log(side, device) as log, library_warnings.collected() as result["warnings"]:
            stage = _Stages(result, log, device, answer)
            try:
                model = stage("build", build, hf_model, device, plan["max_seq_len"])
                for length in plan["lengths"]:
                    session = Session(model)
                    stage(f"prefill {length}", session, [0] * length)
                    steps = min(plan["steps"], plan["max_seq_len"] - length)
                    stage(f"decode {length + 1} to {length + steps}", _decode, session, steps, steps=steps)
                    del session
                result["whole"] = True
                stage.write()
            except (Exception, SystemExit) as error:
                stage.failed(error, plan["path"])
    return 0


def _decode(session, steps):
    for _ in range(steps):
        session([0])


class _Stages:
    """Runs the stages and keeps the answer file up to date."""

    def __init__(self, result, log, device, answer):
        self.result, self.log, self.device, self.answer = result, log, device, answer
        self.name = "build"

    def __call__(self, name, action, *args, steps=1):
        self.name = name
        first, start = len(self.log.records), time.perf_counter()
        self.log.start_stage()
        value = action(*args)
        stage = {"name": name, "first": first, "last": len(self.log.records), "steps": steps}
        stage |= {"seconds": time.perf_counter() - start} | self.log.memory(first)
        self.result["stages"].append(stage)
        self.write()
        return value

    def failed(self, error, path):
        failed = {
            "stage": self.name,
            "type": type(error).__name__,
            "error": indent(error).strip(),
            "line": where(error, path),
        }
        self.result["failed"] = failed | {k: v for k, v in (self.log.failed or {}).items() if k in ("op", "call")}
        self.write()

    def write(self):
        self.result |= {"records": self.log.as_dicts(), "peak_rss_bytes": peak_rss_bytes()}
        Path(self.answer).write_text(json.dumps(self.result))


def _log(side, device):
    return _library_log(device) if side == "mock" else _emulator_log(device)


class _LibraryLog:
    def __init__(self, log):
        self.log, self.records = log, log.records

    failed = property(lambda self: self.log.failed)

    def start_stage(self):
        pass

    def as_dicts(self):
        return self.records

    def memory(self, first):
        found = {f"{kind}_peak": self.log.peak(kind, first) for kind in KINDS}
        return found | {f"{kind}_bytes": self.records[-1][f"{kind}_bytes"] if self.records else 0 for kind in KINDS}


@contextmanager
def _library_log(device):
    from bringup.backends import library_log

    with library_log.record(device) as log:
        yield _LibraryLog(log)


class _EmulatorLog:
    failed = None

    def __init__(self, records, device):
        self.records = records
        self.allocators = dict(zip(KINDS, device.allocators.values(), strict=True))

    def start_stage(self):
        for allocator in self.allocators.values():
            allocator.peak = allocator.allocated

    def as_dicts(self):
        return [record.as_dict() for record in self.records]

    def memory(self, first):
        found = {f"{kind}_peak": a.peak * a.banks for kind, a in self.allocators.items()}
        last = next((r for r in reversed(self.records) if r.chips), None)  # a call on the host says nothing of a chip
        return found | {f"{kind}_bytes": getattr(last, f"{kind}_bytes", 0) for kind in KINDS}


@contextmanager
def _emulator_log(device):
    from ttnn_emulator.op import record, spec_only

    with spec_only(), record() as records:
        yield _EmulatorLog(records, device)


# The two accounts, side by side


def judge(results):
    """{"passed", "refused": side -> failure, "difference": the first one or None}."""
    refused = {side: result["failed"] for side, result in results.items() if result["failed"]}
    difference = None
    if len(results) == 2:
        difference = compare(results["mock"], results["emulator"])
    return {"passed": not refused and difference is None, "refused": refused, "difference": difference}


def compare(library, emulator, peak_tolerance=0.01):
    """The first place where the two accounts of a run differ: what, at which call, both records; or None.

    Ops, operands, results and the bytes allocated after each call must be equal; peaks of a stage may differ by 1 %.
    """
    ours, theirs = _counted(emulator), _counted(library)
    for k, (a, b) in enumerate(zip(theirs, ours, strict=False)):
        for what in ("op", "outputs", "inputs", "dram_bytes", "l1_bytes"):
            if what.endswith("_bytes") and not b["chips"]:
                continue  # a call that touches no device
            if a[what] != b[what]:
                return {"what": what, "at": k, "mock": a, "emulator": b}
    if len(ours) != len(theirs) and not (library["failed"] or emulator["failed"]):
        longer, k = (theirs, len(ours)) if len(theirs) > len(ours) else (ours, len(theirs))
        side = "mock" if longer is theirs else "emulator"
        return {"what": f"only the {side} side goes on", "at": k, "mock": None, "emulator": None} | {side: longer[k]}
    for a, b in zip(library["stages"], emulator["stages"], strict=False):
        for kind in KINDS:
            x, y = a[f"{kind}_peak"], b[f"{kind}_peak"]
            if abs(x - y) > peak_tolerance * max(x, y):
                return {"what": f"{kind}_peak of {a['name']}", "at": a["name"], "mock": a, "emulator": b}
    return None


def _counted(result):
    return [r for r in result["records"] if r["op"] not in QUIET]


def ops_per_layer(names):
    """The length of the longest run of names that comes twice in a row: a decoder layer, where there are two."""
    for length in range(len(names) // 2, 3, -1):
        for start in range(len(names) - 2 * length + 1):
            if names[start : start + length] == names[start + length : start + 2 * length]:
                return length
    return None


# What is printed


def report(plan, results, verdict):
    """Lines for people."""
    lines = []
    for side, result in results.items():
        lines += [f"{side}: {result.get('ttnn', '')}", *_stage_table(result)]
        lines += [f"  warning: {text}" for text in result.get("warnings", ())]
        if result["failed"]:
            lines += _refusal(side, result["failed"])
    if verdict["difference"]:
        lines += _difference(verdict["difference"])
    elif len(results) == 2 and not verdict["refused"]:
        n = len(_counted(results["mock"]))
        lines.append(
            f"the emulator's log agrees with the library's: {n} calls, their results and the memory after each"
        )
    name = f"{shown(plan['path'])} on {plan['system']}, {results[next(iter(results))].get('layers', '?')} layers"
    lines.append(("PASS  " if verdict["passed"] else "FAIL  ") + name)
    return lines


def _stage_table(result):
    rows = [("stage", "calls", "a layer", "a step", "DRAM MiB", "peak", "L1 KiB", "peak", "seconds")]
    for stage in result["stages"]:
        names = [r["op"] for r in result["records"][stage["first"] : stage["last"]]]
        steps = stage["steps"]
        layer = ops_per_layer(names[: len(names) // steps])
        rows.append(
            (
                stage["name"],
                str(len(names)),
                str(layer or "-"),
                f"{len(names) / steps:g}" if stage["name"].startswith("decode") else "-",
                *(f"{stage[f'dram_{k}'] / 2**20:,.1f}" for k in ("bytes", "peak")),
                *(f"{stage[f'l1_{k}'] / 2**10:,.0f}" for k in ("bytes", "peak")),
                f"{stage['seconds']:.1f}",
            )
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  " + "  ".join(c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]


def _refusal(side, failed):
    who = {"mock": "the library", "emulator": "the emulator"}[side]
    lines = [f"refused by {who} while: {failed.get('stage', 'running')}"]
    for name in ("line", "call"):
        if failed.get(name):
            lines.append(f"  {name:<5} {failed[name]}")
    return lines + [f"  {line}" for line in reason(failed["error"])]


def reason(error):
    """The lines of a library error that say why: without places in its sources, addresses and backtraces."""
    text = re.split(r"\n\s*backtrace:", error, maxsplit=1)[0]
    return [line for line in text.splitlines() if line.strip() and line.strip() != "info:"]


def same_reason(one, other):
    """Do two refusals say the same: is the closing sentence of one in the text of the other?"""
    closings = [reason(text)[-1].strip().rstrip(".") for text in (one, other)]
    flat = [" ".join(text.split()) for text in (one, other)]
    return " ".join(closings[0].split()) in flat[1] or " ".join(closings[1].split()) in flat[0]


def _difference(difference):
    lines = [f"the accounts differ at call {difference['at']}: {difference['what']}"]
    what = difference["what"]
    for side in ("mock", "emulator"):
        record = difference[side]
        if record is None:
            lines.append(f"  {side:<8} nothing")
        elif "op" in record:
            detail = record.get(what)
            lines.append(f"  {side:<8} {record['op']} at {record.get('line')}")
            if what != "op" and detail is not None:
                lines.append(f"  {'':<8} {what} {json.dumps(detail) if isinstance(detail, list) else f'{detail:,}'}")
        else:
            lines.append(f"  {side:<8} {record[what.split(' ')[0]]:,}")
    return lines


def summary(plan, results, verdict):
    """The same for machines: no records."""
    sides = {side: {k: v for k, v in result.items() if k != "records"} for side, result in results.items()}
    return {"plan": plan, "passed": verdict["passed"], "difference": verdict["difference"], "sides": sides}


if __name__ == "__main__":
    sys.exit(guarded(_child, *sys.argv[1:]))
