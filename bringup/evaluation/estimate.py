"""How long an evaluation of a large model takes here, from this machine's speed at its largest kind of product."""

import time

from bringup.console import duration

LARGE = 1 << 30  # weights of fewer bytes are not worth a guess
EMULATED = 1.5  # times HF in bfloat16: prompts and steps of `bringup bench` with fast numerics, rounded up
WEIGHTS_PER_SECOND = 250e6  # into bfloat8_b on two cores, and onto the emulated device


def of(job):
    """One line, or None: a small model, numbers that nobody has measured, or a device, whose speed is not ours."""
    import torch

    config, s = job.config, job.settings
    weights = weight_count(job)
    if 2 * weights < LARGE or job.activation.name not in ("emulator", "none") or job.settings.numerics == "exact":
        return None
    prompt, new = len(job.prompt_ids), s.max_new_tokens if job.given_tokens is None else len(job.given_tokens)
    wide, narrow = (rates(getattr(torch, t), config.hidden_size, prompt) for t in (s.hf_dtype, "bfloat16"))
    one_pass = wide[1] if job.given_tokens is not None else wide[1] + (new - 1) * wide[0]
    disk = reading_seconds(job.source.weight_files(job.cache_dir))
    reference = disk + weights * (one_pass + narrow[1] * (s.three_way and s.hf_dtype == "float32"))
    first = prompt * narrow[0] if s.prefill_decode else narrow[1]
    device = weights * EMULATED * (first + (new - 1) * narrow[0])
    build = disk + weights / WEIGHTS_PER_SECOND
    return (
        f"about {duration(reference)} for the reference (none where it is kept from before), {duration(build)} to "
        f"build, {duration(device)} on the emulated device, at this machine's present speed"
    )


def weight_count(job):
    """Parameters, from the sizes of the checkpoint's files or from the configuration."""
    import torch

    from bringup.checkpoints import random_weights

    if job.source.random_seed is None:
        dtype = getattr(job.config, "dtype", None) or torch.bfloat16
        return sum(f.stat().st_size for f in job.source.weight_files()) // dtype.itemsize
    return random_weights.size_bytes(job.config, torch.bfloat16) // 2


def reading_seconds(files, samples=8, sample_bytes=1 << 22):
    """What reading the files takes, from samples of the largest: little where the system still has them in memory."""
    files = {f: f.stat().st_size for f in files}
    if not files:
        return 0.0
    largest = max(files, key=files.get)
    with largest.open("rb", buffering=0) as stream:
        read, start = 0, time.perf_counter()
        for i in range(samples):
            stream.seek(files[largest] * i // samples)
            read += len(stream.read(sample_bytes))
        return sum(files.values()) * (time.perf_counter() - start) / max(1, read)


def rates(dtype, hidden, prompt):
    """Seconds per weight of a product with one row, and with `prompt` rows, as HF's linear layers compute it here."""
    import torch

    from bringup.checkpoints.compute_dtype import computing_in

    layer = torch.nn.Linear(hidden, 4 * hidden, bias=False, dtype=torch.bfloat16)
    found = []
    with torch.inference_mode(), computing_in(layer, dtype):
        for rows in (1, prompt):
            x = torch.ones(rows, hidden, dtype=dtype)
            layer(x)
            start = time.perf_counter()
            layer(x)
            found.append((time.perf_counter() - start) / layer.weight.numel())
    return found
