"""Blocks and one decoder layer against HF's modules of the same names."""

from bringup.checks import layers
from bringup.checks.outcome import skipped, verdict

#: Blocks are asked with users at all positions: the first ones are watched too, and a user that is not the first.
FEW_OR_ANOTHER = ({"tokens": 2}, {"tokens": layers.PROFILE_TOKENS, "user": 1})


def decode_modules(context):
    """Norms, products, RoPE, cache, attention, MLP and head, for 32 users who decode one token each."""
    judged = _judged(context, lambda r: r.phase == "decode" and not _is_layer(r), "blocks")
    return layers.lead(context, judged, watched=FEW_OR_ANOTHER)


def decoder_layer(context):
    """A whole decoder layer, decode and prefill."""
    return layers.lead(context, _judged(context, _is_layer, "layers"))


def prefill_modules(context):
    """The blocks over a prompt: part of the item `prefill`."""
    return _judged(context, lambda r: r.phase == "prefill" and not _is_layer(r), "blocks")


def _is_layer(result):
    return result.name.rpartition(".")[2].isdigit()


def _judged(context, wanted, what):
    usable, why = context.uses_blocks
    if not usable:
        return skipped(why)
    found = [r for r in context.modules if wanted(r)]
    if not context.values:
        return skipped(f"{len(found)} {what} were called; {context.no_values}")
    bad = [r for r in found if not r.ok and not layers.made_up_for(context, r.name)]
    own = [r for r in found if not r.compensated] or found
    worst = min(own, key=lambda r: (1 - r.bound) / max(1 - r.pcc, 1e-12))
    good = f"{len(found)} {what}; nearest to its bar: {worst.name}, PCC {worst.pcc:.6f} (bar {worst.bound})"
    hint = bad[0].hint if bad else None
    return verdict(map(str, bad), good, [str(r) for r in found if r.ok], hint)
