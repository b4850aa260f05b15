"""`bringup demo` and `demo.py`: HF's generate() with a model.py, as the text comes."""

import argparse
import sys
import time

from bringup.evaluation import command

HELP = "generate() with one model.py: streamed text, TTFT, tokens per second"


def add_arguments(parser):
    command.add_model_arguments(parser)
    command.add_trace_arguments(parser)
    command.add_prompt_arguments(parser)
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="sample; 0 is greedy (default)")
    parser.add_argument(
        "--top_p", type=float, default=1.0, metavar="P", help="sample from the best P of the probability"
    )
    parser.add_argument("--eval", action="store_true", help="then compare with the HF model, as eval.py does")
    parser.add_argument("--hf-dtype", default="float32", choices=("float32", "bfloat16"), help="the reference's dtype")
    parser.add_argument("--three_way", action=argparse.BooleanOptionalAction, default=True,
                        help="with --eval: HF in bf16 beside the device (default: on)")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write the figures")


def run(args):
    from bringup.checkpoints import mapped
    from bringup.console import gib, quiet_libraries
    from bringup.errors import BadInput
    from bringup.evaluation.run import Job, Settings, lines, memory_line
    from bringup.files import writable, write_json

    quiet_libraries()
    if args.temperature < 0:
        raise BadInput("--temperature is out of range", got=args.temperature, want="0 (greedy) or more")
    if not 0 < args.top_p <= 1:
        raise BadInput("--top_p is out of range", got=args.top_p, want="more than 0, up to 1 (all)")
    writable(args.json)
    names = Settings.__dataclass_fields__
    job = Job(Settings(**{k: v for k, v in vars(args).items() if k in names}))
    print(job.activation)
    print(job.describe(), flush=True)
    reference = job.reference() if args.eval else None
    with job.open_model() as (model, device):
        result = job.facts() | generate(job, model, args.temperature, args.top_p)
        label = "emulated: times of this machine, not of a device" if job.activation.emulated else "measured"
        rate = f", {result['tokens_per_second_per_user']:.1f} t/s/u" if result["tokens_per_second_per_user"] else ""
        print(f"TTFT {result['ttft_ms']:.0f} ms{rate} ({label}); {result['new_tokens']} tokens")
        if not job.activation.values:
            print(f"The calls were accepted; {job.activation.name} holds no values, so the text means nothing")
        if reference is None:
            from bringup import backends

            result["memory"] = backends.memory(device)
            if result["memory"]:
                print(memory_line(result["memory"]))
            result |= {"seconds_build": job.seconds_build, "peak_rss_bytes": mapped.peak_rss_bytes()}
            print(f"This process: peak {gib(result['peak_rss_bytes'])} resident")
        else:
            agreeing = common_prefix(result["token_ids"], reference.tokens)
            print(f"free-running text: the first {agreeing} of {len(reference.tokens)} tokens are the HF model's own")
            result |= job.measure(model, device, reference)
            print("\n".join(lines(result)))
    result["command"] = job.command("demo.py") + " --eval" * args.eval
    write_json(result, args.json)


def generate(job, model, temperature=0.0, top_p=1.0):
    """Stream a continuation to stdout; its token ids and times."""
    import torch

    from bringup.errors import blame
    from bringup.evaluation.consistency import mask_for

    torch.manual_seed(job.settings.seed)
    streamer = Streamer(job.tokenizer)
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature > 0 else {"do_sample": False}
    )
    input_ids = torch.tensor([job.prompt_ids])
    try:
        with blame(job.model_file.path, "generating"):
            model.generate(
                input_ids,
                **mask_for(model, torch.ones_like(input_ids)),
                max_new_tokens=job.settings.max_new_tokens,
                pad_token_id=job.eos[0] if job.eos else 0,
                streamer=streamer,
                **sampling,
            )
    finally:
        print(flush=True)  # an error message starts on its own line
    times = streamer.times
    later = times[-1] - times[0]
    return {
        "token_ids": streamer.ids,
        "new_tokens": len(streamer.ids),
        "text": job.tokenizer.decode(streamer.ids) if job.tokenizer else None,
        "ttft_ms": 1000 * (times[0] - streamer.start),
        "tokens_per_second_per_user": (len(times) - 1) / later if later > 0 else None,
        "emulated": job.activation.emulated,
    }


class Streamer:
    """Prints words as they are complete (ids where there is no tokenizer) and notes when each token came."""

    def __init__(self, tokenizer):
        self.tokenizer, self.ids, self.times, self.printed = tokenizer, [], [], 0
        self.start = None

    def put(self, ids):
        if self.start is None:  # generate() hands in the prompt first
            self.start = time.perf_counter()
            if self.tokenizer:
                self._write(self.tokenizer.decode(ids[0], skip_special_tokens=True) + "\033[1m" * sys.stdout.isatty())
            return
        self.times.append(time.perf_counter())
        self.ids.append(int(ids))
        if self.tokenizer is None:
            self._write(f"{self.ids[-1]} ")
        else:
            self._flush(final=False)

    def end(self):
        if self.tokenizer:
            self._flush(final=True)
        self._write("\033[0m" * sys.stdout.isatty())

    def _flush(self, final):
        text = self.tokenizer.decode(self.ids, skip_special_tokens=True)
        # A later byte may still change the last characters of the text: hold them back until a word ends.
        end = len(text) if final else max(text.rfind(" "), text.rfind("\n")) + 1
        if end > self.printed:
            self._write(text[self.printed : end])
            self.printed = end

    def _write(self, text):
        print(text, end="", flush=True)


def common_prefix(a, b):
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n
