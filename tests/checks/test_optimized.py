"""What an optimised file owes the functional one: each debt, when it is not paid, is a fail that says so."""

from types import SimpleNamespace

import pytest
import torch

from bringup import backends
from bringup.checks import checklist, optimized
from bringup.files import PROJECT

backends.activate("emulator")

FILE = PROJECT / "models/meta-llama/Llama-3.2-1B/n150/optimized/model.py"


def test_only_an_optimised_file_has_the_item():
    functional = FILE.parents[1] / "functional/model.py"
    assert optimized.beside(FILE) == functional.resolve()
    assert optimized.beside(functional) is None
    assert [i.name for i in checklist.chosen(None, FILE)] == [*checklist.NAMES, "optimized"]
    assert [i.name for i in checklist.chosen(None, functional)] == list(checklist.NAMES)
    assert [i.name for i in checklist.chosen(["optimized"], FILE)] == ["optimized"]


def figures(n, top1):
    return {"n": n, "top1": top1, "kl_mean": 1e-3}


@pytest.mark.parametrize(("own", "text", "lost"), [(0.99, 0.99, 0.5), (0.99, 0.98, 1), (0.98, 0.98, 1.5)])
def test_more_than_a_point_of_top1_over_all_texts_is_too_much(monkeypatch, own, text, lost):
    context = SimpleNamespace(
        measured=figures(100, own), reference=None, measured_on_text=figures(100, text), reference_on_text=None
    )
    monkeypatch.setattr(optimized, "_functional", lambda *_: [figures(100, 1.0), figures(100, 0.99)])
    monkeypatch.setattr(optimized, "_longer", lambda _: None)
    problems, lines = optimized.accuracy(context, None)
    assert bool(problems) == (lost > 1)
    assert "functional 100.0%" in " ".join(lines)
    assert "mean KL" in lines[-1]


@pytest.mark.parametrize(("longer", "lost"), [(0.98, 0.6), (0.95, 3.0)])
def test_too_much_on_few_tokens_is_judged_on_many(monkeypatch, longer, lost):
    """3 points lost of 100 tokens, and none or 3 of 400 more."""
    job = SimpleNamespace(measure=lambda *_: figures(400, longer))
    context = SimpleNamespace(measured=figures(100, 0.96), measured_on_text=None, reference=None, job=job)
    context.model = context.device = None
    answers = iter([[figures(100, 0.99)], [figures(400, 0.98)]])
    monkeypatch.setattr(optimized, "_functional", lambda *_: next(answers))
    monkeypatch.setattr(optimized, "_longer", lambda _: SimpleNamespace(tokens=range(400)))
    problems, lines = optimized.accuracy(context, None)
    assert bool(problems) == (lost > 1)
    assert "500 tokens" in lines[0]
    assert "the first 100 tokens" in lines[-1]


class Model:
    """Counts up from the last token of a prompt; `wrong` is the way, or the user, that does not."""

    token_step, traced = None, False

    def __init__(self, wrong=None):
        self.wrong = wrong

    def release_trace(self):
        pass

    def forward(self, input_ids, past_key_values=None):
        logits = torch.nn.functional.one_hot(input_ids[:, -1:] + 1 + (self.wrong == "logits"), 100).float()
        return SimpleNamespace(logits=logits, past_key_values=0)

    __call__ = forward

    def next_token_device(self, input_ids, past_key_values=None, use_cache=True):
        found = (input_ids[:, -1] + 1).tolist()
        if (self.traced and self.wrong == "replayed") or (len(found) > 1 and self.wrong == "users"):
            found[-1] += 1
        return found[0] if len(found) == 1 else found, 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(None, None), ("logits", "tokens on the device"), ("replayed", "tokens replayed"), ("users", "user 31 of 32")],
)
def test_tokens_chosen_on_the_device_are_the_same_every_way(wrong, said):
    context = SimpleNamespace(model=Model(wrong), text=SimpleNamespace(ids=list(range(40))))
    context.job = SimpleNamespace(prompt_ids=list(range(40)), model_file=SimpleNamespace(path=FILE))
    problems, lines = optimized.tokens_on_device(context, None)
    assert bool(problems) == (wrong is not None)
    assert said is None or said in problems[0]
    assert bool(lines) == (wrong is None)


def test_one_without_a_token_step_says_so():
    problems, _ = optimized.tokens_on_device(SimpleNamespace(model=object(), job=SimpleNamespace(prompt_ids=[1])), None)
    assert "token_step" in problems[0]


def small_context(path=FILE):
    """Of one layer at true width, by shapes alone."""
    from bringup.backends import model_files, systems

    file = model_files.describe(path)
    return SimpleNamespace(job=SimpleNamespace(model_file=file, system=systems.get(file.system)))


@pytest.fixture
def one_layer(monkeypatch):
    from bringup.checkpoints import known
    from bringup.tuning.trials import cut

    config = cut(known.known_config("meta-llama/Llama-3.2-1B"), 1)
    config.max_position_embeddings = 512
    monkeypatch.setattr(optimized, "_planned", lambda context: config)


def test_it_is_faster_and_holds_the_contexts(one_layer):
    other = optimized.beside(FILE)
    for ask in (optimized.speed, optimized.contexts):
        problems, lines = ask(small_context(), other)
        assert not problems
        assert lines
    assert "512 positions" in lines[0]


def test_one_that_is_no_faster_or_holds_less_says_so(one_layer, monkeypatch):
    from bringup.planning import spec_run

    other, real = optimized.beside(FILE), spec_run.spec_run
    problems, _ = optimized.speed(small_context(other), other)
    assert "not faster in both" in problems[0]

    def refuses(path, *args, **more):
        if path == FILE:
            from bringup.errors import ModelFailed

            raise ModelFailed("out of memory")
        return real(path, *args, **more)

    monkeypatch.setattr(spec_run, "spec_run", refuses)
    problems, _ = optimized.contexts(small_context(), other)
    assert "out of memory" in problems[0]


#: The tiny checkpoint of each model that has optimised files.
TINY = {
    "AFM-4.5B": "tiny-afm",
    "ALLaM-7B-Instruct-preview": "tiny-allam",
    "Llama-3.2-1B": "tiny-llama",
    "Mistral-7B-Instruct-v0.3": "tiny-mistral",
}
FILES = sorted((PROJECT / "models").glob("*/*/*/optimized/model.py"))


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] * (path != FILE)) for path in FILES],
    ids=["/".join(path.parts[-4:-2]) for path in FILES],
)
def test_every_file_here_pays_its_debts(path, tmp_path, capsys):
    from bringup import cli

    words = [str(path), "--model", str(PROJECT / "checkpoints" / TINY[path.parts[-4]]), "--items", "optimized"]
    assert cli.main(["check", *words, "--quick", "--out", str(tmp_path)]) == 0, capsys.readouterr().out
