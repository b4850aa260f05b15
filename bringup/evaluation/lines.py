"""The result of an evaluation for people."""

from bringup.console import gib, mib
from bringup.evaluation.metrics import Rate

COLUMNS = ("top1", "top5", "kl_mean", "kl_p99", "kl_worst", "rel_l2", "pcc", "perplexity_device")
TITLES = ("top-1", "top-5", "KL mean", "KL p99", "KL worst", "rel. L2", "PCC", "perplexity")


def lines(result):
    out, who = [], "HF model" if result["backend"] == "none" else "device"
    if "top1" in result:
        n = result["n"]
        top1, top5, of_reference = (Rate(round(result[k] * n), n) for k in ("top1", "top5", "top5_of_reference"))
        text = result.get("text_file")
        out += [
            f"Top-1 accuracy: {top1}",
            f"Top-5 accuracy: {top5}",
            f"  n = {n}, 95 % intervals: top-1 {top1.spread()}, top-5 {top5.spread()}",
            f"  text: {f'given, {text}' if text else 'the reference goes on by itself (greedy)'}",
            f"  top-5 is the reference token in the {who}'s five best; the {who}'s best in the reference's five: "
            f"{of_reference}",
            f"KL(reference || {who}): mean {result['kl_mean']:.2e}, 99th percentile {result['kl_p99']:.2e}, "
            f"worst {result['kl_worst']:.2e} nats",
            f"Logits: relative L2 {result['rel_l2']:.4f}, PCC {result['pcc']:.6f}, predictions outside the reference's "
            f"best 100: {result['garbage']}",
            f"Perplexity on the {'given' if text else 'reference' + chr(39) + 's'} tokens: "
            f"{who} {result['perplexity_device']:.4f}, reference {result['perplexity_reference']:.4f}",
        ]
        if result.get("bf16"):
            out += three_way(result)
    else:
        out.append(f"The calls were accepted; {result['backend']} holds no values, so there is no accuracy")
    if result["memory"]:
        out.append(memory_line(result["memory"]))
    if result.get("peak_rss_bytes"):
        out.append(f"This process: peak {gib(result['peak_rss_bytes'])} resident")
    return out


def three_way(result):
    """HF in bf16 and the device, each against HF in fp32: what the format costs, apart from what a bug costs."""
    rows = [["against HF fp32", *TITLES], ["HF bf16", *_cells(result["bf16"])], ["device", *_cells(result)]]
    widths = [max(map(len, column)) for column in zip(*rows)]
    table = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))) for r in rows]
    if result["bf16"]["rel_l2"] > 0:
        ratio = result["rel_l2"] / result["bf16"]["rel_l2"]
        table.append(f"The device's logits are {ratio:.1f}x as far from fp32 as those of HF in bf16")
    return table


def _cells(figures):
    formats = ("{:.2%}", "{:.2%}", "{:.1e}", "{:.1e}", "{:.1e}", "{:.4f}", "{:.6f}", "{:.4f}")
    return [f.format(figures[name]) for f, name in zip(formats, COLUMNS)]


def memory_line(memory):
    dram = memory["dram"]
    peak = f", peak {mib(dram['peak'])}" if "peak" in dram else ""
    return f"DRAM per chip: {mib(dram['allocated'])}{peak} of {mib(dram['total'])}"


def ranges(indices, one, many=None, limit=6):
    """[1, 2, 3, 7] -> "positions 1 to 3, 7"."""
    spans = []
    for i in sorted(indices):
        if spans and spans[-1][1] == i - 1:
            spans[-1][1] = i
        else:
            spans.append([i, i])
    said = [f"{a}" if a == b else f"{a} and {b}" if b == a + 1 else f"{a} to {b}" for a, b in spans[:limit]]
    word = one if len(indices) == 1 else many or one + "s"
    return f"{word} {', '.join(said)}{', ...' if len(spans) > limit else ''}"
