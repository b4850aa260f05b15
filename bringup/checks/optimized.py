"""What an optimised file owes the functional one beside it: as near to HF, as long contexts, as many users; faster."""

from dataclasses import replace

from bringup.checks.outcome import skipped, verdict
from bringup.errors import BringupError, blame, shown
from bringup.files import PROJECT

FOLDER, BESIDE = "optimized", "functional"
POINTS = 1.0  # of top-1 that it may lose to the functional file, over all texts together
STEPS, USERS, ALONE = 6, 32, (0, 13, 31)  # steps whose token stays on the device; those of many who are also run alone
LONGER = PROJECT / "prompts" / "prose.txt"
PROMPT_TOKENS, CONTEXT, PROMPT = 33, 256, 128


def beside(path):
    """The functional file of an optimised one; None of others."""
    path = path.resolve()
    found = path.parents[1] / BESIDE / path.name
    return found if path.parent.name == FOLDER and found.is_file() else None


def optimized(context):
    """Top-1 and KL divergence, tokens chosen on the device, contexts, and predicted speed beside the functional's."""
    other = beside(context.job.model_file.path)
    if not context.values:
        return skipped(f"held against {shown(other)} where there are values; {context.no_values}")
    problems, lines = [], []
    for ask in (accuracy, tokens_on_device, contexts, speed):
        wrong, found = ask(context, other)
        problems += wrong
        lines += found
    return verdict(problems, f"as good as {shown(other)}, and faster by prediction", lines)


# Each returns (problems, lines).


def accuracy(context, other):
    """Over HF's own text and a given one, both files led through the same tokens; over a longer one too where these
    say that too much is lost: of so few tokens two are a point."""
    texts = {"HF's own text": (context.measured, context.reference)}
    if context.measured_on_text:
        texts["a given text"] = context.measured_on_text, context.reference_on_text
    functional = _functional(context, other, [reference for _, reference in texts.values()])
    points, n = _lost(texts, functional)
    few = None
    if points > POINTS and (reference := _longer(context)):
        few = f"the first {n} tokens had {-points:+.1f} points: {len(reference.tokens)} more were asked for"
        texts["a longer text"] = context.job.measure(context.model, context.device, reference), reference
        functional += _functional(context, other, [reference])
        points, n = _lost(texts, functional)
    both = [
        f"{name}, {own['n']} tokens: top-1 {own['top1']:.1%} (functional {given['top1']:.1%}), mean KL "
        f"{own['kl_mean']:.1e} (functional {given['kl_mean']:.1e})"
        for (name, (own, _)), given in zip(texts.items(), functional, strict=True)
    ]
    line = f"top-1 over {n} tokens {-points:+.1f} points from the functional file's"
    return [f"{line}: at most {POINTS:g} may be lost"] * (points > POINTS + 1e-9), [line, *both, *[few] * bool(few)]


def _lost(texts, functional):
    """(points of top-1 below the functional file's over all texts together, their tokens)"""
    pairs = [(own, given) for (own, _), given in zip(texts.values(), functional, strict=True)]
    n = sum(own["n"] for own, _ in pairs)
    return 100 * sum(own["n"] * (given["top1"] - own["top1"]) for own, given in pairs) / n, n


def _longer(context):
    """What HF says of a text as long as the cache; None where there is no tokenizer for it."""
    from bringup.evaluation.texts import given_text

    job = context.job
    if job.tokenizer is None:
        return None
    length = job.max_seq_len
    ids, tokens = given_text(LONGER, job.tokenizer, length, PROMPT_TOKENS, length, job.config)
    return job.scored(ids, tokens, shown(LONGER))


def _functional(context, other, references):
    """What the functional file gives of each reference, with the same checkpoint, on chips of its own."""
    from bringup.backends import model_files
    from bringup.evaluation.run import Job

    job = Job(replace(context.job.settings, model_py=str(other), system=model_files.describe(other).system))
    job.share(context.job)
    return job.measure_built(references)


def tokens_on_device(context, other):
    """The same tokens from logits, chosen on the device, and replayed there; of a user among many as of one alone."""
    model, prompt = context.model, context.job.prompt_ids[:PROMPT_TOKENS]
    if not hasattr(model, "token_step"):
        return ["the next token is not chosen on the device: the model has no token_step"], []
    ways = {"from logits": lambda: _from_logits(model, prompt), "on the device": lambda: _on_device(model, [prompt])[0]}
    ways["replayed"] = lambda: _traced(model, lambda: _on_device(model, [prompt])[0])
    with blame(context.job.model_file.path, "choosing tokens on the device"):
        found = {name: run() for name, run in ways.items()}
        prompts = _crowd(context)
        together = _traced(model, lambda: _on_device(model, prompts))
        alone = {user: _on_device(model, [prompts[user]])[0] for user in ALONE}
    problems = [
        f"tokens {name} are {tokens}, from logits {found['from logits']}"
        for name, tokens in found.items()
        if tokens != found["from logits"]
    ]
    problems += [
        f"user {user} of {USERS} has tokens {together[user]}, alone {tokens}"
        for user, tokens in alone.items()
        if together[user] != tokens
    ]
    lines = [
        f"{STEPS} tokens chosen on the device, run and replayed, are those of the logits",
        f"of {USERS} users at once, users {', '.join(map(str, ALONE))} have the tokens that each has alone",
    ]
    return problems, [] if problems else lines


def _crowd(context):
    """A prompt of equal length for each of many users."""
    ids = context.text.ids
    return [[*ids[user:], *ids][:PROMPT_TOKENS] for user in range(USERS)]


def _from_logits(model, prompt):
    from bringup.checkpoints.session import Session

    session, tokens = Session(model), []
    logits = session(prompt)
    for _ in range(STEPS):
        tokens.append(int(logits.argmax()))
        logits = session(tokens[-1:])
    return tokens


def _on_device(model, prompts):
    """The tokens after each prompt."""
    import torch

    given, past, steps = torch.tensor(prompts), None, []
    for _ in range(STEPS):
        found, past = model.next_token_device(given, past_key_values=past, use_cache=True)
        steps.append(found if isinstance(found, list) else [found])
        given = torch.tensor(steps[-1])[:, None]
    return [list(tokens) for tokens in zip(*steps, strict=True)]


def _traced(model, run):
    before, model.traced = model.traced, True
    try:
        return run()
    finally:
        model.traced = before
        model.release_trace()


def _planned(context):
    """The configuration at its true size, where the path names a model that is known; else the checkpoint's."""
    from bringup.checkpoints import known

    hf_id = context.job.model_file.hf_id
    return known.known_config(hf_id) if hf_id in known.known_ids() else context.job.config


def contexts(context, other):
    """It is built, and runs a prompt and a step, at the longest contexts at which the functional file does."""
    from bringup.backends import model_files
    from bringup.planning.formats import Formats
    from bringup.planning.memory import Memory, check_longest
    from bringup.planning.spec_run import spec_run

    config, problems, lines = _planned(context), [], []
    file = model_files.describe(other)
    formats = Formats.of(file.module.PRECISION)
    counted = Memory(config, _system(file, context), formats).longest_contexts()
    longest = check_longest(other, config, file.system, formats, counted)
    for kind, tokens in (("32 rows", longest["unpaged"]["context"]), ("paged", longest["paged"]["context"])):
        if not tokens:
            continue
        prompt = tokens - 1 if kind == "32 rows" else min(tokens - 1, 2048)
        try:
            spec_run(context.job.model_file.path, config, context.job.system, max_seq_len=tokens, prompt=prompt)
        except BringupError as error:
            why = " ".join(line.strip() for line in str(error).splitlines()[:2])
            problems.append(f"a context of {tokens:,} ({kind}) that the functional file holds is refused: {why}")
        else:
            lines.append(f"the functional file's longest context, {kind}: {tokens:,} positions run by shapes")
    return problems, lines


def _system(file, context):
    from bringup.backends import systems

    return systems.get(file.system or context.job.system)


def speed(context, other):
    """TTFT and tokens per second of both at the true configuration, as `plan` predicts them."""
    from bringup.backends import model_files
    from bringup.planning.spec_run import spec_run
    from bringup.planning.wiring import TOKEN_ON_DEVICE, speeds

    config, found = _planned(context), {}
    for name, path, system in (
        ("functional", other, _system(model_files.describe(other), context)),
        ("optimised", context.job.model_file.path, context.job.system),
    ):
        run = spec_run(path, config, system, max_seq_len=CONTEXT, prompt=PROMPT)
        ways = speeds(run, system, context=PROMPT + 32)
        found[name] = ways[TOKEN_ON_DEVICE] if name == "optimised" else max(
            ways.values(), key=lambda p: p.tokens_per_second_per_user
        )  # fmt: skip
    old, new = found["functional"], found["optimised"]
    line = (
        f"predicted, not measured, prompt of {PROMPT}: {new.tokens_per_second_per_user:.1f} t/s/u (functional "
        f"{old.tokens_per_second_per_user:.1f}), TTFT {1e3 * new.ttft_seconds:.1f} ms (functional "
        f"{1e3 * old.ttft_seconds:.1f}); weights alone {new.weights_bound_tps:.1f} t/s/u"
    )
    slower = not (
        new.tokens_per_second_per_user > old.tokens_per_second_per_user and new.ttft_seconds < old.ttft_seconds
    )
    return [f"not faster in both: {line}"] * slower, [line]
