"""Is there something to be held against? The HF model by itself."""

import math

from bringup.checks import exchanged
from bringup.checks.outcome import verdict

REPEATED = 0.5  # the most common token's share of a text that is no text
BF16_TOP1 = 0.9  # below that the bars of a bring-up cannot be met in a 16-bit format


def baseline(context):
    """HF generates, its text is sane, and HF in bfloat16 agrees with HF in float32."""
    reference, job = context.reference, context.job
    tokens, random = reference.tokens, job.source.random
    bf16 = context.in_bf16
    problems = []
    if not math.isfinite(bf16.perplexity_reference):
        problems.append("the reference's logits are not finite")
    share = max(map(tokens.count, tokens)) / len(tokens)
    if share > REPEATED and len(tokens) >= 16 and not random:
        problems.append(f"one token is {100 * share:.0f} % of the {len(tokens)} that HF generates")
    if bf16.top1.value < BF16_TOP1 and not random:
        problems.append(f"HF in bfloat16 has a top-1 of only {bf16.top1} against itself in float32")
    if swapped := exchanged.find(context):
        (a, b), place, mended = swapped
        told = (
            f"HF has the tokens of a text at place {place:.0f} of its guesses, at {mended:.0f} with each in the other's"
        )
        problems.insert(0, f"the checkpoint's {a} and {b} look exchanged: {told}")
    text = job.tokenizer.decode(tokens) if job.tokenizer else " ".join(map(str, tokens))
    evidence = [
        f"text: {' '.join(text.split())[:200]}",
        f"perplexity of it {bf16.perplexity_reference:.3f}; {len(set(tokens))} different tokens of {len(tokens)}",
        f"HF in bfloat16 against float32: top-1 {bf16.top1}, relative L2 of the logits {bf16.rel_l2:.4f}, KL mean "
        f"{bf16.kl_mean:.1e}",
    ]
    if random:
        evidence.append("random weights: the text means nothing")
    summary = f"HF generates {len(tokens)} tokens; bfloat16 alone costs relative L2 {bf16.rel_l2:.4f}"
    return verdict(problems, summary, evidence, hint="another checkpoint or prompt: this reference proves nothing")
