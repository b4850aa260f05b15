"""The whole model against HF: token by token, teacher-forced, free-running, as one prompt, through generate()."""

import dataclasses

from bringup.checks import layers
from bringup.checks.modules import prefill_modules
from bringup.checks.outcome import FAIL, PASS, Outcome, skipped, verdict
from bringup.evaluation.consistency import OF_BF16, UNDECIDED


def full_decode(context):
    """A text token by token through the whole model, past every boundary, to the end of the cache."""
    results = context.ask("decode", "cache_end")
    return layers.judge(context, _asked(context, results), "decode", results)


def teacher_forcing(context):
    """The bars of a bring-up: top-1 >= 90 %, top-5 >= 95 %, and no prediction outside the reference's best 100. Where
    HF's own bfloat16 is below one too, as with random weights, whose tokens are hardly decided, that is said."""
    result = context.measured
    if not context.values:
        return skipped(f"{result['prompt_tokens']} prompt tokens and the steps after it ran; {context.no_values}")
    from bringup.evaluation.run import lines

    below, decided = _below(result)
    fewer = None if not below or decided else result
    if fewer and (reference := context.longer_reference):
        result = context.job.measure(context.model, context.device, reference)
        below, _ = _below(result)
    n = result["n"]
    problems, bf16 = [], result["bf16"]
    for name, key, rate, bar in below:
        too = f", and so is HF's own bfloat16 with {bf16[key]:.1%}: such tokens decide little" * (bf16[key] < bar)
        problems.append(f"{name} {rate} is below {100 * bar:.0f} %{too}")
    if result["garbage"]:
        problems.append(f"{result['garbage']} predictions are outside the reference's best 100")
    given = context.measured_on_text
    context.sections["accuracy"] = _figures(result) | {"given_text": given and _figures(given)}
    evidence = [line.strip() for line in lines(result)]
    if fewer and fewer is not result:
        evidence.append(f"the first {fewer['n']} tokens left it open (top-1 {fewer['top1']:.1%}): {n} were asked for")
    if given:
        evidence.append(
            f"on a given text of {given['n']} tokens: top-1 {given['top1']:.1%}, top-5 {given['top5']:.1%}, KL mean "
            f"{given['kl_mean']:.1e}; HF in bfloat16 {given['bf16']['top1']:.1%}, {given['bf16']['top5']:.1%}, "
            f"{given['bf16']['kl_mean']:.1e}"
        )
    rates = ", ".join(f"{name} {100 * result[key]:.1f} %" for name, key in (("top-1", "top1"), ("top-5", "top5")))
    summary = f"{rates} of {n}, KL mean {result['kl_mean']:.1e}"
    return layers.lead(context, verdict(problems, summary, evidence))


def _below(result):
    """(the rates below their bars, as (name, key, rate, bar); whether one is below beyond its interval)"""
    from bringup.evaluation.metrics import TOP1_BAR, TOP5_BAR, Rate

    n = result["n"]
    rates = [
        (name, key, Rate(round(result[key] * n), n), bar)
        for name, key, bar in (("top-1", "top1", TOP1_BAR), ("top-5", "top5", TOP5_BAR))
    ]
    below = [each for each in rates if each[2].value < each[3]]
    return below, any(rate.interval[1] < bar for *_, rate, bar in below)


def _figures(result):
    """The figures of a measured run and of HF in bfloat16, without what was run."""
    return {name: result[name] for name in (*result["bf16"], "bf16")}


def generation(context):
    """The model's own greedy text beside HF's: identical, or apart from a token that HF found nearly as good."""
    from bringup.checkpoints import session
    from bringup.errors import blame
    from bringup.evaluation import metrics
    from bringup.evaluation.generation import common_prefix

    job, reference = context.job, context.reference
    with blame(job.model_file.path, "generating"):
        tokens, _ = session.greedy(
            context.model,
            job.prompt_ids,
            len(reference.tokens),
            eos=job.eos,
            min_new_tokens=min(job.settings.min_new_tokens, len(reference.tokens)),
            watch=session.Watch(
                f"generation ({job.activation.name})",
                session.layers_of(context.model, job.config.num_hidden_layers),
            ),
        )
    if not context.values:
        return skipped(f"{len(tokens)} tokens were generated; {context.no_values}")
    same = common_prefix(tokens, reference.tokens)
    whole = same == len(tokens) == len(reference.tokens)
    context.sections["texts"] = {
        "prompt": _text(job, job.prompt_ids),
        "reference": _pieces(job, reference.tokens),
        "device": _pieces(job, tokens),
        "first_difference": None if whole else same,
    }
    evidence = [f"HF:     {_shown(job, reference.tokens)}", f"device: {_shown(job, tokens)}"]
    if whole:
        return Outcome(PASS, f"all {len(tokens)} tokens are HF's", evidence)
    if same == len(tokens):
        return Outcome(FAIL, f"the text ends after {same} tokens, HF's goes on", evidence)
    logits, token = reference.logits[same], tokens[same]
    behind = float(logits.max() - logits[token])
    place = metrics.rank(logits, token)
    begin = f"the first {same} of {len(reference.tokens)} tokens are HF's; then"
    if same < 2:
        begin = (
            f"the first of {len(reference.tokens)} tokens is HF's; then" if same else "no token is HF's: the first is"
        )
    summary = f"{begin} HF's {_nth(place + 1)} best"
    problems = [summary] * (place >= 5)
    size = float(logits[logits.isfinite()].square().mean().sqrt())
    explained = UNDECIDED * OF_BF16 * context.in_bf16.rel_l2 * size
    if behind > explained:
        problems.append(f"token {same} is {behind:.3f} behind HF's, which is decided: {explained:.3f} are explained")
    evidence.append(f"at token {same} HF has the device's token {behind:.3f} behind its own")
    return verdict(problems, summary, evidence)


def prefill(context):
    """Prompts of all lengths in one pass: the blocks, the whole model against decode and HF, and a second prompt."""
    blocks = prefill_modules(context)
    results = context.ask("prefill_against_decode", "prompt_lengths", "second_prompt")
    outcome = _asked(context, results)
    evidence = outcome.evidence + [f"blocks: {blocks.summary}"]
    if blocks.status == FAIL:
        outcome = Outcome(FAIL, blocks.summary, [outcome.summary, *blocks.evidence, *outcome.evidence], blocks.hint)
    else:
        outcome = dataclasses.replace(outcome, evidence=evidence)
    return layers.judge(context, outcome, "prefill", results)


def end_to_end(context):
    """HF's generate(): the same text as step by step, a batch of users, sampling with a seed."""
    import torch

    from bringup.checkpoints import session
    from bringup.errors import blame
    from bringup.evaluation.consistency import mask_for
    from bringup.evaluation.generation import common_prefix

    job, reference = context.job, context.reference
    if not hasattr(context.model, "generate"):
        return Outcome(FAIL, "the model has no generate()", hint="subclass transformers' GenerationMixin")
    n = min(16, len(reference.tokens))
    ids = torch.tensor([job.prompt_ids])
    contract = context.model.register_forward_hook(lambda _, args, out: session.answered(out))
    try:
        with blame(job.model_file.path, "running generate()"), torch.inference_mode():
            out = context.model.generate(
                ids,
                **mask_for(context.model, torch.ones_like(ids)),
                max_new_tokens=n,
                min_new_tokens=min(job.settings.min_new_tokens, n),
                do_sample=False,
                pad_token_id=job.eos[0] if job.eos else 0,
            )[0].tolist()
    finally:
        contract.remove()
    if not context.values:
        context.ask("batch", "users", "same_seed")
        return skipped(f"generate() ran; {context.no_values}")
    tokens, problems = out[ids.shape[1] :], []
    if out[: ids.shape[1]] != job.prompt_ids:
        problems.append("what generate() returns does not begin with the prompt")
    own = [piece["id"] for piece in (context.sections.get("texts") or {}).get("device", [])][:n]
    if own and tokens != own:
        problems.append(f"generate() and the same steps one by one differ from token {common_prefix(tokens, own)} on")
    agreeing = common_prefix(tokens, reference.tokens)
    results = context.ask("batch", "users", "same_seed")
    problems += [f"{r.name}: {r.detail}" for r in results if r.ok is False]
    evidence = [("warning: " if r.ok is None else "") + f"{r.name}: {r.detail}" for r in results if r.ok is not False]
    same = "all HF's" if agreeing == len(tokens) == n else "whose text is judged in generation"
    outcome = verdict(problems, f"generate() drives it: {len(tokens)} tokens, {same}", evidence)
    return layers.lead(context, outcome, results) if any(r.figures.get("users") for r in results) else outcome


def _asked(context, results):
    """One outcome of several consistency questions."""
    if not context.values:
        return skipped(f"{len(results)} runs; {context.no_values}")
    bad = [f"{r.name}: {r.detail}" for r in results if r.ok is False]
    good = [f"{r.name}: {r.detail}" for r in results if r.ok is not False]
    worst = max(results, key=lambda r: r.figures.get("rel_l2", 0.0))
    far = worst.figures.get("rel_l2", 0.0) / worst.figures.get("bf16", 1.0)
    return verdict(
        bad, f"{len(results)} questions; at most {far:.1f} times HF's own bfloat16 error ({worst.name})", good
    )


def _nth(n):
    """1st, 2nd, 3rd, 4th."""
    teen = n % 100 in (11, 12, 13)
    return f"{n}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def _text(job, ids):
    return job.tokenizer.decode(ids) if job.tokenizer else " ".join(map(str, ids))


def _pieces(job, ids):
    return [{"id": i, "text": _text(job, [i])} for i in ids]


def _shown(job, ids):
    text = " ".join(_text(job, ids).split())
    return text if len(text) <= 240 else text[:237] + "..."
