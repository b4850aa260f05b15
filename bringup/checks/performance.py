"""What makes a model fast, looked for in the op log and in the model. Absent is a warning; broken is a fail."""

from collections import Counter

from bringup.checks.outcome import skipped, verdict

BLOCK_FORMATS = ("bfloat8_b", "bfloat4_b")
HOST_OPS = ("ttnn.from_torch", "ttnn.to_torch", "ttnn.from_device", "ttnn.to_device", "ttnn.copy_host_to_device_tensor")
INPUTS, OUTPUTS = 4, 1  # what a decode step may move: tokens, positions, positions of the rotation, pages; logits


def performance(context):
    """Traced decode, no host in the step, block formats, sharded decode, few programs, prefill in one pass, no leak."""
    checks = [traced]
    if context.emulator:
        record(context)
        checks = [no_leak, *checks, no_host, weight_formats, sharded, programs, one_pass]
    lines, problems = [], []
    for check in checks:
        ok, line = check(context)
        lines.append(("" if ok else "warning: ") + line)
        if ok is None:
            problems.append(lines.pop().removeprefix("warning: "))
    warnings = sum(line.startswith("warning: ") for line in lines)
    memory(context)
    if not context.emulator and not context.values:
        return skipped("; ".join(lines))
    summary = "nothing is missing" if not warnings else f"{len(lines) - warnings} of {len(lines)} features are there"
    predicted = context.sections.get("predicted")
    if predicted:
        lines.append(
            f"predicted for a model of this size, not measured: {predicted['tokens_per_second_per_user']:.1f} t/s/u, "
            f"TTFT {1000 * predicted['ttft_seconds']:.1f} ms"
        )
    return verdict(problems, summary, sorted(lines, key=lambda x: not x.startswith("warning")))


# Each returns (True: there, False: absent, None: broken; one line).


def traced(context):
    """A captured step gives the same logits, bit for bit."""
    import torch

    model, prompt = context.model, context.job.prompt_ids[:33]
    if not hasattr(model, "traced"):
        return False, "traced decode: the model has no `traced`; each step is dispatched op by op"
    if not context.emulator:  # the mock cluster cannot capture; a board wants a region for it when it is opened
        return True, "traced decode: offered; `scripts/run_eval.py --trace 1` runs it"
    tokens = context.reference.tokens[:3]
    plain = _logits(model, prompt, tokens)
    before, model.traced = model.traced, True
    try:
        replayed = _logits(model, prompt, tokens)
    finally:
        model.traced = before
        if hasattr(model, "release_trace"):
            model.release_trace()
    if not torch.equal(plain, replayed):
        apart = float((plain - replayed).norm() / plain.norm())
        return None, f"traced decode gives other logits than untraced: relative L2 {apart:.3g}"
    return True, f"traced decode: captured and replayed, the same logits over {len(tokens)} steps"


def no_host(context):
    """A step reads and writes the host only for its inputs and its logits."""
    moved = Counter(r.op for r in context.records["decode"] if r.op in HOST_OPS)
    into = sum(n for op, n in moved.items() if "to_torch" not in op and "from_device" not in op)
    out = sum(moved.values()) - into
    text = ", ".join(f"{n} x {op}" for op, n in moved.items()) or "nothing"
    fine = into <= 2 * INPUTS and out <= OUTPUTS
    return fine, f"the host in a decode step: {text}" + ("" if fine else "; every transfer waits for the device")


def weight_formats(context):
    """Which formats the products read their weights in."""
    size = Counter()
    for r in context.records["decode"]:
        if r.op in ("ttnn.linear", "ttnn.matmul") and len(r.inputs) > 1:
            size[_dtype(r.inputs[1])] += r.inputs[1].bytes
    total = sum(size.values())
    if not total:
        return False, "weights: no ttnn.linear in a decode step"
    text = ", ".join(f"{name} {100 * n / total:.0f} %" for name, n in size.most_common())
    block = sum(size[name] for name in BLOCK_FORMATS) / total
    saving = "; bfloat8_b would nearly halve what a decode step reads" if block < 0.5 else ""
    return block >= 0.5, f"weights read by a decode step: {text} of {total / 2**20:,.1f} MiB a chip{saving}"


def sharded(context):
    """Decode tensors in L1 shards, one user or a few columns a core."""
    made = [s for r in context.records["decode"] for s in r.outputs if s.memory_config is not None]
    n = sum(s.memory_config.is_sharded() for s in made)
    l1 = sum("L1" in str(s.memory_config.buffer_type) for s in made)
    return n > 0, f"decode results in L1: {l1} of {len(made)}, sharded {n}"


def programs(context):
    """A second step needs no program that the first one did not."""
    new, total = context.records["new_programs"], context.records["programs"]
    text = f"programs: {total} in all, {new} new in the second decode step"
    return new == 0, text + ("; every new one is compiled on a device, and cannot be traced" if new else "")


def one_pass(context):
    """The calls of a prompt do not grow with its length."""
    short, long = (len(context.records[k]) for k in ("short_prefill", "prefill"))
    lengths = context.records["lengths"]
    fine = long < 1.5 * short
    text = f"prefill: {short} calls for {lengths[0]} tokens, {long} for {lengths[1]}"
    return fine, text + ("" if fine else "; the prompt runs in pieces")


def no_leak(context):
    """Steps leave no memory behind."""
    left = context.records["left"]
    if left > 0:
        return None, f"each decode step leaves {left:,} bytes of DRAM or L1 allocated"
    return True, "memory: a decode step leaves nothing allocated"


# The op log


def record(context):
    """The op log of a prompt and of a decode step, memory after every call, and programs."""
    import ttnn_emulator.op
    from bringup.checkpoints.session import Session

    model, device, prompt = context.model, context.device, context.job.prompt_ids
    tokens = context.reference.tokens
    short = prompt[: max(1, len(prompt) // 4)]
    with ttnn_emulator.op.record() as log:
        Session(model)(short)
    records = {"short_prefill": list(log), "lengths": (len(short), len(prompt))}
    Session(model)(prompt)  # warm: what a first run keeps is not a prompt's
    device.reset_peak()
    before = device.memory()
    with ttnn_emulator.op.record(buffers=True) as log:
        session = Session(model)
        session(prompt)
    records["prefill"] = list(log)
    records["peak"] = device.memory()["dram"]["peak"] - before["dram"]["allocated"]
    session(tokens[:1])
    held, kept = _allocated(device), device.num_program_cache_entries()
    with ttnn_emulator.op.record(buffers=True) as log:
        session(tokens[1:2] or tokens[:1])
    records["decode"] = list(log)
    records["left"] = _allocated(device) - held
    records["new_programs"] = device.num_program_cache_entries() - kept
    records["programs"] = device.num_program_cache_entries()
    context.records = records
    context.sections["ops"] = op_table(context)


def op_table(context):
    """Calls, bytes, flops and predicted time by phase and op; the prediction of the whole."""
    from bringup.planning import roofline

    rows = []
    for phase in ("prefill", "decode"):
        traced = phase == "decode"
        times = roofline.by_op(roofline.op_times(context.records[phase], context.job.system, traced=traced))
        total = sum(t.seconds for t in times) or 1.0
        rows += [
            {
                "op": t.op,
                "phase": phase,
                "calls": t.calls,
                "bytes": t.bytes,
                "flops": t.flops,
                "predicted_seconds": t.seconds,
                "share": t.seconds / total,
            }
            for t in times
        ]
    records = context.records
    if not any(row["phase"] == "decode" and row["predicted_seconds"] for row in rows):
        return rows  # it computes nothing on the device
    predicted = roofline.predict(records["prefill"], records["decode"], context.job.system, traced=True)
    context.sections["predicted"] = predicted.as_dict()
    return rows


def memory(context):
    """Bytes per chip: by group where the op log tells, and after every call of a prompt and of a step."""
    from bringup import backends

    found = backends.memory(context.device)
    if found is None:
        return
    groups, timeline = None, []
    if context.records:
        cache = sum(r.inputs[0].bytes for r in context.records["decode"] if "update_cache" in r.op and r.inputs)
        groups = {
            "weights": found["dram"]["allocated"] - cache,
            "cache": cache,
            "activations_peak": context.records["peak"],
        }
        timeline = [
            {"phase": phase, "op": r.op, "dram": r.dram_bytes, "l1": r.l1_bytes}
            for phase in ("prefill", "decode")
            for r in context.records[phase]
        ]
    context.sections["memory"] = {"chip": found, "groups": groups, "timeline": timeline}


def _logits(model, prompt, tokens):
    import torch

    from bringup.checkpoints.session import Session

    session = Session(model)
    return torch.cat([session(prompt)] + [session([t]) for t in tokens])


def _allocated(device):
    return sum(kind["allocated"] for kind in device.memory().values())


def _dtype(spec):
    return str(spec.dtype).rpartition(".")[2].lower()
