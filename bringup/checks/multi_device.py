"""The same model on the other meshes of its chip: the file itself, or its siblings for the other systems."""

import gc

from bringup.backends import systems
from bringup.checks.outcome import skipped, verdict
from bringup.errors import BringupError, shown
from bringup.evaluation.consistency import OF_BF16

STEPS = 8  # tokens that each mesh is led through


def multi_device(context):
    """Every other mesh is led through the same tokens, and must be as near to HF as bfloat16 explains."""
    if not context.emulator:  # the model under check keeps its chips (or its mock cluster) until the end
        return skipped("one process has one mesh here: `bringup check` (or `verify`) runs the other system's file")
    own = context.job.system
    others = [name for name in systems.alike(own) if systems.get(name).chips != own.chips]
    files, reasons = {}, []
    for name in others:
        build, what, system = _build_for(context, name)
        if build is None:
            reasons.append(f"{name}: {what}")
        else:
            files[system] = build, what
    if not files:
        return skipped(f"{', '.join(others)}: {reasons[0].partition(': ')[2]}")
    figures_here = _compared(context, context.model)
    results, problems = [], []
    for name, (build, what) in files.items():
        try:
            figures = _run(context, name, build)
        except BringupError as error:
            problems.append(f"{name} ({what}): {': '.join(line.strip() for line in str(error).splitlines()[:2])}")
            continue
        except Exception as error:
            problems.append(f"{name} ({what}): {type(error).__name__}: {str(error).strip().splitlines()[0]}")
            continue
        line, wrong = _judge(context, name, figures, figures_here)
        results.append(f"{line}; {what}")
        problems += wrong
    good = f"{', '.join(files)}: within {OF_BF16:.0f} times HF's own bfloat16 error"
    return verdict(problems, good, [*results, *reasons])


def _build_for(context, name):
    """(build_model of the model on another system, where it is from, as which system it opens the chips), or (None, why
    there is none, None)."""
    from bringup.backends import model_files

    file = context.job.model_file
    if context.given_build is not None:
        return context.given_build, "the given build_model", name
    if file.system is not None:
        sibling = file.path.resolve().parents[2] / name / file.path.resolve().parent.name / "model.py"
        if sibling.is_file():
            found = model_files.describe(sibling)
            return model_files.load_model_file(sibling, found.system).build_model, shown(sibling), found.system
    usable, why = context.uses_blocks
    if usable:
        return file.build_model, "the same file", name
    return None, f"no folder of that system beside the file; {why}", None


def _run(context, name, build):
    """The comparison with HF of the model built on another system."""
    from bringup import backends
    from bringup.errors import blame

    job = context.job
    with backends.open_system(systems.get(name)) as device:
        with blame(job.model_file.path, f"building it on {name}"):
            model = build(context.hf, device, job.max_seq_len)
        try:
            with blame(job.model_file.path, f"running it on {name}"):
                return _compared(context, model)
        finally:
            del model
            gc.collect()


def _compared(context, model):
    """Compared with HF over the first tokens."""
    from bringup.evaluation import metrics, teacher_forcing

    reference = context.reference
    tokens = reference.tokens[:STEPS]
    logits, _ = teacher_forcing.run(model, context.job.prompt_ids, tokens)
    return metrics.compare(reference.logits[: len(tokens)], logits, tokens)


def _judge(context, name, figures, own):
    """The figures in words, and what is wrong with them."""
    line = f"{name}: relative L2 of the logits {figures.rel_l2:.4f} ({context.job.system.name} {own.rel_l2:.4f})"
    line += f", top-1 {figures.top1.hits} of {figures.n}"
    explained = OF_BF16 * context.text.bf16
    wrong = []
    if not figures.rel_l2 <= explained:
        wrong.append(f"{line}: {figures.rel_l2 / context.text.bf16:.1f} times HF's own bfloat16 error")
    return line, wrong
