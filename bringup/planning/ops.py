"""The predicted programs of a prompt and of a decode step, as the CSV that tt-perf-report reads.

`bringup plan MODEL --system S --ops FILE.csv` writes it, then `tt-perf-report FILE.csv` shows the decode step, and with
`--start-signpost prefill --end-signpost decode` the prompt. One row a program of one chip (the others are alike), in
the columns of the device profiler's op report with physical and logical shapes; every row says `predicted`.

The durations are those of `roofline`: a program's own time with its start in DEVICE KERNEL DURATION, what lies between
two programs in OP TO OP LATENCY, there also what an untraced program waits for the host's call. What the host reads is
a row without a device. They add up to the prediction.
"""

import csv
import io
import math

from bringup.backends import systems
from bringup.files import write
from bringup.planning import kernels, roofline
from bringup.planning.kernels import Rates

LABEL = "predicted"
DIMENSIONS = ("W", "Z", "Y", "X")
INPUTS = 3  # operands shown of a program; a product's bias is the third
OF_TENSOR = (*(f"{d}_PAD[LOGICAL]" for d in DIMENSIONS), "LAYOUT", "DATATYPE", "MEMORY")
TENSORS = (*(f"INPUT_{i}" for i in range(INPUTS)), "OUTPUT_0")
COLUMNS = (
    "OP CODE", "OP TYPE", "GLOBAL CALL COUNT", "DEVICE ID", "DEVICE ARCH", "ATTRIBUTES", "MATH FIDELITY", "CORE COUNT",
    "AVAILABLE WORKER CORE COUNT", "HOST START TS", "HOST DURATION [ns]", "OP TO OP LATENCY [ns]",
    "DEVICE FW DURATION [ns]", "DEVICE KERNEL DURATION [ns]",
    *(f"{tensor}_{column}" for tensor in TENSORS for column in OF_TENSOR),
    "PHASE", "TTNN CALL", "LABEL",
)  # fmt: skip

# The profiler's name of a program by the library's of the op: those that tt-perf-report 1.4.1 tells apart
# (perf_report.py, OPERATION_CATEGORIES); others have their own, in capitals as the profiler's.
NAMES = {
    "linear": "Matmul", "matmul": "Matmul", "minimal_matmul": "MinimalMatmulOp", "rms_norm": "LayerNorm",
    "layer_norm": "LayerNorm", "rotary_embedding": "RotaryEmbedding", "rotary_embedding_llama": "RotaryEmbeddingLlama",
    "scaled_dot_product_attention": "ScaledDotProductAttention",
    "chunked_scaled_dot_product_attention": "ScaledDotProductAttention",
    "scaled_dot_product_attention_decode": "SdpaDecode", "paged_scaled_dot_product_attention_decode": "SdpaDecode",
    "nlp_create_qkv_heads": "NlpCreateHeads", "nlp_create_qkv_heads_decode": "NLPCreateQKVHeadsDecode",
    "nlp_concat_heads": "NLPConcatHeads", "nlp_concat_heads_decode": "NLPConcatHeadsDecode", "embedding": "Embeddings",
    "paged_update_cache": "PagedUpdateCache", "argmax": "ArgMax", "reshape": "ReshapeView",
    "interleaved_to_sharded": "InterleavedToSharded", "sharded_to_interleaved": "ShardedToInterleaved",
    "all_reduce": "AllReduceAsync", "all_gather": "AllGather", "reduce_scatter": "ReduceScatter",
    "untilize_with_unpadding": "UntilizeWithUnpadding", "tilize_with_val_padding": "TilizeWithValPadding",
} | dict.fromkeys(("add", "multiply", "mul", "subtract", "add_", "multiply_"), "BinaryNg") | dict.fromkeys(
    ("silu", "gelu", "relu", "exp", "sigmoid", "tanh"), "Unary"
)  # fmt: skip
MOVED = {  # of ttnn.to_memory_config, by whether what goes in, and what comes out, is sharded
    (False, False): "Copy", (False, True): "InterleavedToSharded", (True, False): "ShardedToInterleaved",
    (True, True): "Reshard",
}  # fmt: skip
PROGRAMS = {
    "in0": "MatmulMultiCoreReuseMultiCast1DProgramConfig",
    "in1": "MatmulMultiCoreReuseMultiCast1DProgramConfig",
    "2d": "MatmulMultiCoreReuseMultiCastProgramConfig",
    "reuse": "MatmulMultiCoreReuseProgramConfig",
    "dram": "MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig",
    "plain": "MatmulMultiCoreProgramConfig",
    "minimal": "MinimalMatmulConfig",
}


def write_csv(path, phases, system, *, users=1, context=128):
    """Writes the programs of {phase: (records, traced)} to `path`, and returns it."""
    return write(path, text(rows(phases, system, users=users, context=context)))


def text(found):
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return out.getvalue()


def rows(phases, system, *, users=1, context=128, rates=None):
    """Each phase's signpost, and a row for each of its programs, as {column: value}."""
    system = systems.get(system)
    rates = rates or Rates.fitted(system.chip)
    found = []
    for phase, (records, traced) in phases.items():
        found.append({"OP CODE": phase, "OP TYPE": "signpost"})
        times = roofline.op_times(records, system, traced=traced, users=users, context=context, rates=rates)
        worked = [r for r in records if roofline.work(r, system, users, context) is not None]
        for record, time in zip(worked, times, strict=True):
            if record.launches:
                programs = [_program(each, system, rates, users, context) for each in record.launches]
                own = sum(row["DEVICE KERNEL DURATION [ns]"] + row["OP TO OP LATENCY [ns]"] for row in programs)
                programs[0]["OP TO OP LATENCY [ns]"] += max(0.0, 1e9 * time.seconds - own)  # until the host's call
            else:
                programs = [{"OP CODE": f"(torch) {record.op}", "OP TYPE": "python_fallback"}]
                programs[0] |= {"HOST DURATION [ns]": 1e9 * time.seconds, "DEVICE KERNEL DURATION [ns]": 0}
            found += [row | {"PHASE": phase, "TTNN CALL": record.op} for row in programs]
    for number, row in enumerate(found, 1):
        row |= {"GLOBAL CALL COUNT": number, "HOST START TS": number, "LABEL": LABEL}
        for name, value in row.items():
            row[name] = round(value, 1) if isinstance(value, float) else value
    return found


def _program(launch, system, rates, users, context):
    """The row of one program that a trace replays."""
    chip = system.chip
    seconds = float(kernels.seconds(kernels.kernel(launch, system, users, context), system, rates))
    duration = 1e9 * (seconds - rates.gap_seconds)
    row = {
        "OP CODE": op_code(launch), "OP TYPE": "tt_dnn_device", "DEVICE ID": 0, "DEVICE ARCH": chip.name,
        "ATTRIBUTES": attributes(launch), "MATH FIDELITY": _fidelity(launch), "CORE COUNT": cores(launch, chip),
        "AVAILABLE WORKER CORE COUNT": chip.cores, "OP TO OP LATENCY [ns]": 1e9 * rates.gap_seconds,
        "DEVICE FW DURATION [ns]": duration, "DEVICE KERNEL DURATION [ns]": duration,
    }  # fmt: skip
    for name, specs in zip(TENSORS, (*_operands(launch), launch.outputs[0] if launch.outputs else None), strict=True):
        row |= {} if specs is None else {f"{name}_{column}": value for column, value in _tensor(specs).items()}
    return row


def _operands(launch):
    return (*launch.inputs, *[None] * INPUTS)[:INPUTS]


def op_code(launch):
    """The profiler's name of a program: that of `ttnn.linear` is MatmulDeviceOperation."""
    name = launch.op.rpartition(".")[2]
    base, later, _ = name.partition("_async")
    known = NAMES.get(name) or NAMES.get(base)
    if name == "to_memory_config" and launch.outputs:
        known = MOVED[tuple(_sharded(spec) for spec in (launch.inputs[0], launch.outputs[0]))]
    if known is None:
        known = "".join(word[:1].upper() + word[1:] for word in base.split("_") if word)
    return known + "Async" * (bool(later) and not known.endswith("Async")) + "DeviceOperation"


def _sharded(spec):
    return spec.memory_config is not None and spec.memory_config.is_sharded()


def _fidelity(launch):
    given = launch.attrs.get("math_fidelity")
    return "" if given is None else str(getattr(given, "name", given)).rpartition(".")[2]


def attributes(launch):
    """The program config of a product as the profiler writes it, as far as the op log has it."""
    kind, said = launch.attrs.get("program"), {}
    if kind is not None:
        per_m, per_n = launch.attrs.get("per_core", (0, 0))
        blocks = f"in0_block_w={launch.attrs.get('in0_block_w', 1)};per_core_M={per_m};per_core_N={per_n}"
        said["program_config"] = f"{PROGRAMS.get(kind, kind)}({blocks})"
    return "{" + "; ".join(f"'{name}': '{value}'" for name, value in (said | {"label": LABEL}).items()) + "}"


def cores(launch, chip):
    """How many cores a program has at work: a product's blocks, a sharded tensor's own, else one a tile or row."""
    form = kernels.form_of(launch)
    tensor = launch.inputs[0] if form == "row" or not launch.outputs else launch.outputs[0]
    down, across = kernels._tiles(tensor.padded_shape)
    if form in kernels.OF_PRODUCTS:
        if launch.attrs.get("program") == "dram":
            return chip.dram.count
        per_m, per_n = launch.attrs.get("per_core", (down, 1))
        return min(chip.cores, max(1, -(-down // per_m) * -(-across // per_n)))
    sharded = kernels._cores(tensor)
    if sharded:
        return sharded
    return chip.cores if form == "attention" else min(chip.cores, max(1, down if form == "row" else down * across))


def _tensor(spec):
    shape, padded = ([1] * 4 + list(s) for s in (spec.shape, spec.padded_shape))
    shape[-4], padded[-4] = math.prod(shape[:-3]), math.prod(padded[:-3])  # a fifth dimension and beyond are batches
    sizes = {f"{d}_PAD[LOGICAL]": f"{p}[{n}]" for d, p, n in zip(DIMENSIONS, padded[-4:], shape[-4:], strict=True)}
    memory = spec.memory_config
    place = f"DEV_0_{memory.buffer_type.name}_{memory.memory_layout.name}" if memory is not None else "HOST"
    return sizes | {"LAYOUT": spec.layout.name, "DATATYPE": spec.dtype.name, "MEMORY": place}
