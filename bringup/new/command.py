"""A bring-up of a model that is not here yet, out of bringup.blocks: model.py, MODEL_BRINGUP.md and a test.

bringup new Qwen/Qwen3-0.6B --system n150
bringup new path/to/checkpoint --id org/name --system t3000 --out my-bringups

Written from the HF configuration: a known id (or one in the HF cache or on the hub), a checkpoint directory, a GGUF
file, or a config.json. Files rarely say which model they are: --id ORG/NAME does, and names the folder under models/.
Where the model needs what no block does, nothing is written and everything that is missing is listed: the field and
its value, HF's module that has it, and what would be needed. What is written has run whole by shapes.
"""

import json
import re
import shutil
import tempfile
import textwrap
from pathlib import Path

from bringup import arguments
from bringup.backends import systems
from bringup.checkpoints import by_layer
from bringup.errors import BadInput, shown
from bringup.files import write as write_file
from bringup.files import write_all
from bringup.new.literal import WIDTH, literal

HELP = "write a model file, its notes and a test from an HF configuration"
HERE = Path(__file__).parent


def add_arguments(parser):
    parser.add_argument("model", type=arguments.name, metavar="HF_ID_OR_CONFIG",
                        help="HF id, checkpoint directory, GGUF file or config.json")  # fmt: skip
    parser.add_argument("--system", choices=systems.NAMES, default="n150", help="default: %(default)s")
    id_help = "the model's HF id; needed where a directory or config.json does not say it in _name_or_path"
    parser.add_argument("--id", type=arguments.name, metavar="ORG/NAME", help=id_help)
    parser.add_argument("--out", type=arguments.name, metavar="DIR", default=".",
                        help="where models/ and tests/ are (default: here)")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="write over files that are there")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line instead")


def run(args):
    from bringup import backends
    from bringup.checkpoints import configuration
    from bringup.console import quiet_libraries

    quiet_libraries()
    backends.activate("emulator")
    from bringup.new import covered, facts  # they import ttnn

    config, hf_id, flag = configuration.find(args.model, args.id)
    traits, missing = covered.look(config)
    if missing:
        if args.json:
            print(json.dumps({"model": hf_id, "covered": False, "gaps": [vars(gap) for gap in missing]}))
        lines = "".join(f"\n  {n}. {gap}" for n, gap in enumerate(missing, 1))
        raise BadInput(f"{hf_id}: bringup.blocks does not cover this model; nothing was written{lines}")
    try:
        found = facts.gather(config, hf_id, args.system, traits)
    except ValueError as error:  # layers of kinds that no field tells apart, a sum that no statement says
        raise BadInput(f"{hf_id}: no model file says what was read; nothing was written", got=str(error)) from error
    found = facts.fit(found)
    found.asked, found.model_flag = args.model, flag
    files = write(found, Path(args.out), args.force)
    figures = {name: getattr(found, name) for name in ("dtype", "paged", "dram_built", "dram_peak")}
    if args.json:
        print(json.dumps({"model": hf_id, "covered": True, "files": [str(f) for f in files], **figures}))
        return
    from bringup.blocks.parallel import USERS

    cache = f"a cache of {USERS} users x {found.max_seq_len} positions"
    if found.paged:
        cache = f"a paged cache: {USERS} users x {found.max_seq_len} positions do not fit, they share what does"
    print(f"{hf_id} on {found.system}: covered; weights in {found.dtype}, {cache}")
    built, peak = found.dram_built / 1e9, found.dram_peak / 1e9
    print(f"  run whole by shapes: {built:.2f} GB a chip built, {peak:.2f} GB at its peak")
    print("\n".join(f"  wrote {shown(f)}" for f in files))
    print(f"  next: pytest {shown(files[-1])}")


def write(found, root, force=False):
    """Writes the files under `root` and gives their paths, the test last."""
    from bringup.new import facts, small

    folder = root / "models" / found.hf_id / found.system.name / "functional"
    slug = re.sub(r"\W+", "_", found.name).lower()
    files = {"model.py": folder / "model.py", "notes": folder / "MODEL_BRINGUP.md"}
    files["test"] = root / "tests" / "models" / f"test_{slug}_{found.system.name}.py"
    full = _full_file(folder)
    if full:
        del files["notes"]
    there = [shown(f) for f in files.values() if f.exists()]
    if there and not force:
        raise BadInput("already there", got=", ".join(there), hint="--force writes over it; --out DIR writes elsewhere")
    found.model_path = str(files["model.py"].relative_to(root))
    found.test_path = str(files["test"].relative_to(root))
    found.small = small.fields(found.config, small.layers(found.config))
    _words(found)
    texts = {"model.py": _delegate(found, full) if full else _render("model.py.j2", found)}
    with tempfile.TemporaryDirectory(prefix="bringup-new-") as place:  # tried there before anything is written here
        tried = Path(place) / "models" / found.hf_id / found.system.name / "functional" / "model.py"
        write_file(tried, texts["model.py"])
        if full:
            beside = tried.parents[2] / full / "functional"
            shutil.copytree(folder.parents[1] / full / "functional", beside)
        _hold_against_hf(tried, found)
        facts.run_by_shapes(tried, found)
    found.padded_heads = found.heads.n_query * found.system.chips - found.config.num_attention_heads
    if "notes" in files:
        texts["notes"] = _render("MODEL_BRINGUP.md.j2", found)
    texts["test"] = _render("test_model.py.j2", found)
    return write_all({path: texts[name] for name, path in files.items()})


def draft(found, root):
    """Writes the model file alone under `root`, for what needs no values; its path."""
    path = root / "models" / found.hf_id / found.system.name / "functional" / "model.py"
    _words(found)
    write_file(path, _render("model.py.j2", found))
    return path


def _hold_against_hf(model_py, found):
    """Runs the file at a small random size, on the system that it is for: BadInput where it is not HF's model."""
    from bringup.new import small

    try:
        found.measured = small.check(model_py, found.small, found.system.name)
    except AssertionError as error:
        raise BadInput(
            f"{found.hf_id}: the model file that was written computes something else than HF; nothing was written",
            got=str(error),
            want="logits as near to HF in float32 as HF in bfloat16 is, of a small random model of its kind",
            hint="what was read of it: " + "; ".join(f"{k}: {v}" for k, v in found.traits.sources.items()),
        ) from error
    except Exception as error:  # the file, HF's classes and the device raise what they like
        raise BadInput(
            f"{found.hf_id}: the model file that was written does not run at a small size; nothing was written",
            got=" ".join(f"{type(error).__name__}: {error}".split())[:500],
            want="a prompt and steps of a small random model of its kind on the emulator",
        ) from error


def _full_file(folder):
    """The system beside `folder`'s whose model file is written out, to which this one can delegate; or None."""
    for other in sorted(folder.parents[1].glob("*/functional/model.py")):
        if other.parents[1].name != folder.parent.name and "delegate(" not in other.read_text():
            return other.parents[1].name
    return None


def _words(found):
    """The sentences of the docstrings."""
    config, system, words = found.config, found.system, found.traits.words
    heads = f"{config.num_attention_heads} query heads and {found.kv_heads} KV heads of {found.head_dim}"
    for i, sizes in by_layer.sizes(config).items():
        said = ", ".join(f"{name} {size}" for name, size in sizes.items())
        said = f" ({said} in {config.layer_types[i].partition('_')[0]} layers)"
        heads += said if said not in heads else ""
    found.heads_words = heads.replace(" and", ",")
    found.attention_words = f", {words['attention']}" if words["attention"] else ""
    found.sum_note = "self_attn and mlp end in an all_reduce over the chips. " if system.chips > 1 else ""
    if found.dtype == "bfloat16":
        formats = "Weights, activations and cache are bfloat16."
    else:
        formats = f"Weights are {found.dtype}, activations and cache bfloat16."
    field = "moe_intermediate_size"  # a mixture may have this size alone, or that of its dense layers alone
    if not words["mlp"].startswith("a mixture") or getattr(config, field, None) is None:
        field = "intermediate_size"
    found.inner = getattr(config, field)
    state = f"; other layers: {words['state']}" if "state" in words else ""
    state += "".join(f"; {words[name]}" for name in ("shared", "per layer") if name in words)
    sizes = (
        f"hidden {config.hidden_size}, MLP {found.inner} ({words['mlp']}), {heads}{found.attention_words}{state}"
        f", vocabulary {config.vocab_size}, {found.rope}. {found.sum_note}{formats} "
        f"Reference: transformers, {found.architecture}."
    )
    found.sizes = "\n".join(textwrap.wrap(sizes, WIDTH, break_on_hyphens=False))


def _delegate(found, other):
    from bringup.blocks.parallel import Heads
    from bringup.new import facts

    heads = Heads.over(found.system.chips, found.config.num_attention_heads, found.kv_heads)
    plan = f"the {other} file, "
    if found.system.chips == 1:
        plan += 'on one chip, where its parallel plan is the identity."""'
    else:
        chips = facts.COUNTS.get(found.system.chips, found.system.chips)
        plan += f'tensor parallel over {chips} chips.\n\nEach has {heads.n_query} query and {heads.n_kv} KV heads.\n"""'
    found.other, found.other_file = other, plan
    return _render("delegate.py.j2", found)


def _render(template, found):
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(vars(found), literal=literal)
