"""Where a model.py first leaves its HF model: every point of every layer compared, and the first that diverges named.

bringup layers models/meta-llama/Llama-3.2-1B/n150/functional/model.py --model checkpoints/tiny-llama
"""

from bringup import arguments
from bringup.console import screen
from bringup.evaluation.command import add_model_arguments, add_trace_arguments

HELP = "where a model.py first leaves its HF model: the layer and the point, and why"
COLUMNS = ("layer", "point", "phase", "rel. L2", "HF bf16", "PCC", "own", "bound")


def add_arguments(parser):
    add_model_arguments(parser)
    add_trace_arguments(parser)
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", type=arguments.text, metavar="TEXT", help="the text itself")
    prompt.add_argument("--prompt_file", type=arguments.name, metavar="FILE",
                        help="a text file (default: prompts/long.txt)")  # fmt: skip
    prompt.add_argument("--prompt_ids_file", type=arguments.name, metavar="FILE",
                        help="token ids, separated by spaces or commas")  # fmt: skip
    parser.add_argument("--tokens", type=arguments.positive, default=70, metavar="N",
                        help="tokens of the prompt (default: 70)")  # fmt: skip
    parser.add_argument("--decode", type=arguments.natural, default=8, metavar="N",
                        help="tokens after it, one by one (default: 8)")  # fmt: skip
    parser.add_argument("--all", action="store_true", help="every point, not only the worst of each layer")
    parser.add_argument("--json", type=arguments.name, metavar="FILE", help="write the profile")


def run(args):
    from bringup.console import quiet_libraries
    from bringup.errors import BadInput
    from bringup.evaluation.run import Job, Settings
    from bringup.files import writable, write_json

    quiet_libraries()
    writable(args.json)
    given = {name: value for name, value in vars(args).items() if name in Settings.__dataclass_fields__}
    job = Job(Settings(**given, prompt_tokens=args.tokens + args.decode, max_new_tokens=1))
    print(job.activation)
    if not job.activation.values:
        raise BadInput(f"the backend {job.activation.name} holds no values to compare", hint="--backend emulator")
    print(job.describe(), flush=True)
    found = of_job(job, args.tokens)
    print_profile(found, every_point=args.all)
    if args.json:
        write_json(args.json, found.as_dict())
    return 1 if found.first else 0


def of_job(job, decode_from):
    """The profile of a job's model over the job's prompt, the first `decode_from` tokens of it in one pass."""
    from bringup.errors import blame
    from bringup.evaluation import layers

    with job.open_model(keep_hf=True) as (model, _):
        with blame(job.model_file.path, "running the model"):
            device = layers.record_device(model, job.prompt_ids, decode_from)
        return layers.judge(job.hf_model(), device, layers.precision_of(job.model_file.module), model)


def print_profile(profile, every_point=False, console=None):
    """The profile as a table and a verdict, for a terminal or a file."""
    from rich.table import Table

    console = console or screen()
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in COLUMNS:
        text = name in ("layer", "point", "phase")
        table.add_column(name, justify="left" if text else "right", no_wrap=name != "point", overflow="fold")
    for row in profile.points if every_point else shortened(profile):
        style = None if row["own"]["ok"] else "bold red"
        table.add_row(*cells(row), style=style)
    console.print(table)
    for line in lines(profile):
        console.print(line, soft_wrap=True)


def shortened(profile):
    """Of each layer and phase the point nearest to its bound, or the first that fails; and what lies outside layers."""
    worst = {}
    for row in profile.points:
        key = (row["phase"], row["layer"] if row["layer"] is not None else row["point"])
        if key not in worst or nearness(row) > nearness(worst[key]):
            worst[key] = row
    return list(worst.values())


def nearness(row):
    """A point's own error over its bound; more than 1 where it diverges."""
    own = row["own"]
    if not own["ok"]:
        return float("inf")
    return own["rel_l2"] / own["bound"]


def cells(row):
    def number(value, digits=4):
        return "" if value is None else f"{value:.{digits}f}"

    own = row["own"]
    return (
        "" if row["layer"] is None else str(row["layer"]),
        row["point"],
        row["phase"],
        number(row["rel_l2"]),
        number(row["bf16"]["rel_l2"]),
        number(row["pcc"], 5),
        number(own["rel_l2"]),
        number(own["bound"]),
    )


def lines(profile):
    """What the columns mean, and the verdict."""
    n = len(profile.ids)
    out = [
        f"{profile.decode_from} tokens as a prompt, {n - profile.decode_from} one by one.",
        "rel. L2: how far the device is from HF in float32; HF bf16: how far HF in bfloat16 is. own: the error of the",
        "point itself, on the device's own input; bound: several times what bfloat16 and the declared formats explain.",
    ]
    if profile.depth == "hidden_states":
        out.append("The file has no submodules of HF's names: its hidden states were compared, layer by layer.")
    if profile.depth == "logits":
        out.append("The file has no submodules of HF's names and returns no hidden states: only logits were compared.")
    out += [f"No fault: {note}" for note in profile.notes]
    first = profile.first
    out.append(f"First divergence: {first} ({first.phase}): {first.why}" if first else "No point diverges.")
    return out
