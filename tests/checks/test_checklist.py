"""A clean model passes all ten items; what raises, is foreign or holds no values is named; files and exit codes."""

import argparse
import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from bringup import backends, checks, cli
from bringup.checkpoints import sources
from bringup.checks import checklist, command, one, results, table
from bringup.errors import BadInput
from bringup.evaluation.run import Job, Settings
from bringup.files import PROJECT

backends.activate("emulator")

ALLAM = "models/humain-ai/ALLaM-7B-Instruct-preview/n150/functional/model.py"
FAILING = "tests/evaluation/files/fails_in_forward.py"


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    """Paths are as a user in the repository types them; tiny models are fastest on one thread."""
    monkeypatch.chdir(PROJECT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A function: the job of a model file with a small checkpoint."""
    cache = str(tmp_path_factory.mktemp("cache"))

    def job(path, checkpoint="tiny-allam", tokens=24):
        model = str(PROJECT / "checkpoints" / checkpoint)
        return Job(
            Settings(str(PROJECT / path), model, max_new_tokens=tokens, min_new_tokens=tokens, prompt_tokens=60,
                     cache_dir=cache)
        )  # fmt: skip

    return job


@pytest.fixture(scope="module")
def clean(job):
    """The check of a clean model, its context, and what was watched."""
    watched = []
    check, context = checklist.run_with_context(
        job(ALLAM), quick=True, watch=lambda r: watched.append((r[-1]["name"], r[-1]["status"]))
    )
    return check, context, watched


def by_name(check):
    return {item["name"]: item for item in check["items"]}


def test_a_clean_model_passes_every_item(clean):
    check, _, watched = clean
    assert [i["name"] for i in check["items"]] == list(checks.NAMES)
    bad = [f"{i['name']}: {i['summary']}" for i in check["items"] if i["status"] != "pass"]
    assert not bad, bad
    assert check["verdict"] == "pass"
    assert watched == [(name, status) for name in checks.NAMES for status in (None, "pass")]


def test_the_record_is_whole_and_plain_json(clean):
    check = json.loads(json.dumps(clean[0], allow_nan=False))
    facts = "format model_py hf_id checkpoint random_weights system backend numerics quick command versions started"
    sections = "accuracy layers modules consistency texts memory ops predicted"
    assert set(check) == {*facts.split(), *sections.split(), "seconds", "verdict", "items"}
    assert (check["format"], check["system"], check["backend"], check["quick"]) == (1, "n150", "emulator", True)
    for item in check["items"]:
        assert set(item) == {"name", "title", "status", "seconds", "summary", "evidence", "hint"}
        assert "\n" not in item["summary"]
    assert {"n", "top1", "positions", "bf16", "given_text", "kl_mean"} <= set(check["accuracy"])
    assert check["accuracy"]["given_text"]["n"] > 0
    assert len(check["texts"]["device"]) == 24
    assert set(check["memory"]) == {"chip", "groups", "timeline"}
    groups, chip = check["memory"]["groups"], check["memory"]["chip"]["dram"]
    assert groups["cache"] == 2 * 2 * 32 * 8 * 256 * 32 * 2  # K and V of 2 layers: 32 users, 8 heads, 256 x 32 bfloat16
    assert groups["weights"] + groups["cache"] == chip["allocated"]
    assert max(t["dram"] for t in check["memory"]["timeline"]) <= chip["peak"]
    for phase in ("prefill", "decode"):
        assert sum(row["share"] for row in check["ops"] if row["phase"] == phase) == pytest.approx(1)
    assert check["predicted"]["label"] == "predicted"
    assert len(check["consistency"]) == 8
    assert {m["phase"] for m in check["modules"]} == {"decode", "prefill"}


def test_the_report_folder(clean, tmp_path):
    check, context, _ = clean
    paths = one.write_folder(check, context.records, tmp_path / "report")
    assert [p.name for p in paths] == ["check.json", "report.html", "visualizer"]
    assert json.loads(paths[0].read_text()) == check
    assert "teacher_forcing" in paths[1].read_text()
    assert (paths[2] / "db.sqlite").stat().st_size > 10_000


def test_notes_are_written_once_between_their_markers(clean, tmp_path):
    notes = tmp_path / "MODEL_BRINGUP.md"
    notes.write_text("# A model\n\nWords of its own.\n")
    first = results.write_notes(clean[0], notes).read_text()
    assert first.startswith("# A model\n\nWords of its own.\n\n## Results\n")
    assert "| teacher_forcing | pass | top-1" in first
    notes.write_text(first + "\nMore words.\n")
    assert results.write_notes(clean[0], notes).read_text() == first + "\nMore words.\n"


def test_models_md_gets_its_row(clean, tmp_path):
    measured = clean[1].measured
    written, models = results.write_models(measured, tmp_path / ALLAM)
    assert written.name == "tiny-allam-n150.json"
    assert json.loads(written.read_text())["top1"] == measured["top1"]
    assert "humain-ai/ALLaM-7B-Instruct-preview | n150 | functional | emulator" in models.read_text()


@pytest.mark.parametrize(("before", "predicted"), [({"true_size": {"tps": 1}}, True), ({}, False), ("{", False)])
def test_a_prediction_in_the_result_is_made_anew(clean, tmp_path, monkeypatch, before, predicted):
    """It would be missing from the row in MODELS.md, or be of the file as it was."""
    from bringup.report import models

    monkeypatch.setattr(
        models, "with_prediction", lambda result, file: result | {"true_size": {"tps": 2, "file": str(file)}}
    )
    monkeypatch.setattr(models, "read", lambda folder: [])
    monkeypatch.setattr(models, "render", lambda found: "")
    path = tmp_path / "results" / "tiny-allam-n150.json"
    path.parent.mkdir()
    path.write_text(before if isinstance(before, str) else json.dumps(before))
    results.write_models(clean[1].measured, tmp_path / ALLAM)
    written = json.loads(path.read_text())
    assert written.get("true_size") == ({"tps": 2, "file": str(tmp_path / ALLAM)} if predicted else None)


def test_what_raises_fails_with_its_line_and_the_rest_runs(job):
    found = by_name(checks.run(job(FAILING), quick=True))
    assert found["baseline"]["status"] == "pass"
    for name in ("full_decode", "teacher_forcing", "generation", "prefill", "performance"):
        assert found[name]["status"] == "fail"
        assert found[name]["summary"].startswith(f"{FAILING}:8: RuntimeError")
        assert "the device said no" in " ".join([found[name]["summary"], *found[name]["evidence"]])
    assert found["end_to_end"]["summary"] == "the model has no generate()"
    text = table.text({"items": list(found.values()), "verdict": "fail", "seconds": 1})
    assert f"FAIL full_decode: {FAILING}:8" in text
    assert text.endswith("FAIL: 1 passed, 6 failed, 3 skipped, in 1 s")


def test_a_model_that_is_not_built_is_reported_once(job):
    def build(hf_model, device, max_seq_len):
        raise ValueError("no such weight")

    check = checks.run(job(ALLAM), quick=True, build=build)
    found = by_name(check)
    assert check["verdict"] == "fail"
    assert found["decode_modules"]["status"] == "fail"
    assert "ValueError while building the model" in found["decode_modules"]["summary"]
    assert found["decode_modules"]["evidence"] == ["  no such weight"]
    assert {found[n]["status"] for n in checks.NAMES[2:]} == {"skipped"}


def test_the_checkpoint_is_loaded_once(job, monkeypatch):
    """Also where a reference is made after the model is built."""
    load, loaded = sources.load_hf_model, []
    monkeypatch.setattr(sources, "load_hf_model", lambda *args, **kwargs: loaded.append(1) or load(*args, **kwargs))
    checks.run(job(ALLAM, tokens=2), quick=True, items=["full_decode", "teacher_forcing"])
    assert len(loaded) == 1


def test_a_foreign_file_is_asked_what_its_contract_answers(job):
    items = ["decode_modules", "decoder_layer", "prefill", "end_to_end", "multi_device"]
    found = by_name(checks.run(job("tests/foreign/llama_by_hand.py", "tiny-llama"), quick=True, items=items))
    status = {name: item["status"] for name, item in found.items()}
    assert status == dict(zip(items, ["skipped", "skipped", "pass", "pass", "skipped"]))
    assert "does not use bringup.blocks" in found["decode_modules"]["summary"]
    assert "n300, t3000: no folder of that system" in found["multi_device"]["summary"]
    batch = [e for e in found["end_to_end"]["evidence"] if "the file takes no batch" in e]
    assert batch
    assert batch[0].startswith("warning: "), "what could not be asked is not passed over"


def test_formats_are_those_that_the_file_declares_in_either_way(job, monkeypatch):
    """As `bringup layers` has them: WEIGHT_DTYPE alone counts too."""
    import ttnn

    from bringup.blocks import Precision
    from bringup.checks.context import Context
    from bringup.evaluation import layers

    context, given = Context(job(ALLAM)), []
    module = SimpleNamespace(WEIGHT_DTYPE=ttnn.bfloat8_b)
    context.job.model_file = dataclasses.replace(context.job.model_file, given=module)
    context.__dict__ |= {"built": (None, None), "hf": None, "reference": SimpleNamespace(tokens=[1, 2])}
    profile = layers.Profile([], "submodules")
    monkeypatch.setattr(layers, "profile", lambda *arguments: given.append(arguments[-1]) or profile)
    assert context.profile is profile
    assert given == [Precision.of(ttnn.bfloat8_b)]


def test_the_command_repeats_the_check(job):
    from bringup.checks.context import Context

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = Context(job(ALLAM), quick=True, items=["baseline", "prefill"]).command().split()
    parsed = parser.parse_args(words[2:])
    assert (parsed.items, parsed.quick, parsed.model_py) == ("baseline,prefill", True, ALLAM)


def test_without_values_the_calls_run_and_accuracy_is_skipped(job):
    """The emulator in the place of a backend that holds no values."""
    without = job(ALLAM)
    without.activation = dataclasses.replace(without.activation, name="mock")
    check = checks.run(without, quick=True)
    found = by_name(check)
    assert found["baseline"]["status"] == "pass"
    assert {found[n]["status"] for n in checks.NAMES[1:]} == {"skipped"}
    for name in checks.NAMES[1:8]:
        assert "holds no values" in found[name]["summary"], name
    assert check["accuracy"] is None
    assert all(r["ok"] is None for r in check["consistency"])


def test_bars(clean, monkeypatch):
    """The same result fails where it is below a bar, and names the first place that diverges only if there is one."""
    from bringup.checks import accuracy

    context = clean[1]
    worse = context.measured | {"top1": 0.5, "garbage": 2}
    monkeypatch.setitem(context.__dict__, "measured", worse)
    monkeypatch.setattr(accuracy.layers, "first_divergence", lambda context: (None, None))
    outcome = accuracy.teacher_forcing(context)
    assert outcome.status == "fail"
    assert outcome.summary == "top-1 50.00% (0.5000) is below 90 %"
    assert "2 predictions are outside the reference's best 100" in outcome.evidence


def test_where_hf_in_bfloat16_is_below_the_bar_that_is_said(clean, monkeypatch):
    from bringup.checks import accuracy

    context = clean[1]
    worse = context.measured | {"top1": 0.5, "bf16": context.measured["bf16"] | {"top1": 0.875}}
    monkeypatch.setitem(context.__dict__, "measured", worse)
    monkeypatch.setattr(accuracy.layers, "first_divergence", lambda context: (None, None))
    outcome = accuracy.teacher_forcing(context)
    assert outcome.status == "fail"
    assert "is below 90 %, and so is HF's own bfloat16 with 87.5%" in outcome.summary


def test_a_rate_that_few_tokens_leave_open_is_measured_over_more(clean, monkeypatch):
    """21 of 24 right is below 90 %, and its interval reaches beyond it: four times as many tokens decide."""
    from bringup.checks import accuracy

    context = clean[1]
    monkeypatch.setitem(context.__dict__, "measured", context.measured | {"top1": 21 / 24})
    asked, right = [], []

    def measure(model, device, reference):
        asked.append(len(reference.tokens))
        return context.measured | {"n": asked[-1], "top1": right.pop() / asked[-1]}

    monkeypatch.setattr(context.job, "measure", measure)
    monkeypatch.setitem(context.__dict__, "built", (None, None))
    monkeypatch.setattr(accuracy.layers, "first_divergence", lambda context: (None, None))
    for hits, status in ((87, "pass"), (86, "fail")):  # of 96: 90.6 and 89.6 %
        right.append(hits)
        outcome = accuracy.teacher_forcing(context)
        assert (outcome.status, asked.pop()) == (status, 96)
        assert "the first 24 tokens left it open (top-1 87.5%): 96 were asked for" in outcome.evidence
    monkeypatch.setitem(context.__dict__, "measured", context.measured | {"top1": 12 / 24})
    assert accuracy.teacher_forcing(context).status == "fail"
    assert not asked  # half of them is no question of how many


def test_another_token_passes_only_where_hf_is_undecided(clean, monkeypatch):
    from bringup.checkpoints import session
    from bringup.checks import accuracy

    context = clean[1]
    reference = dataclasses.replace(context.reference, logits=context.reference.logits.clone())
    monkeypatch.setitem(context.__dict__, "reference", reference)
    best, second = reference.logits.topk(2).values.T
    lead = best - second
    monkeypatch.setitem(context.__dict__, "built", (torch.nn.Module(), None))
    monkeypatch.setattr(accuracy.layers, "first_divergence", lambda context: (None, None))

    def outcome(at):
        tokens = list(reference.tokens)
        tokens[at] = int(reference.logits[at].topk(2).indices[1])
        monkeypatch.setattr(session, "greedy", lambda *args, **kwargs: (tokens, None))
        return accuracy.generation(context)

    found = outcome(int(lead.argmax()))
    assert found.status == "fail"
    assert "behind HF's, which is decided" in found.summary
    tied = int(lead.argmin())
    reference.logits[tied, reference.logits[tied].topk(2).indices[1]] = best[tied] - 1e-4
    assert outcome(tied).status == "pass"


def test_numbers_in_words(clean, monkeypatch):
    from bringup.checkpoints import session
    from bringup.checks import accuracy

    assert [accuracy._nth(n) for n in (1, 2, 3, 4, 11, 12, 22, 113)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "22nd", "113th",
    ]  # fmt: skip
    context = clean[1]
    monkeypatch.setitem(context.__dict__, "built", (torch.nn.Module(), None))
    found = []
    for at in (0, 1, 2):
        tokens = list(context.reference.tokens)
        tokens[at] = int(context.reference.logits[at].argsort(descending=True)[6])
        monkeypatch.setattr(session, "greedy", lambda *args, tokens=tokens, **kwargs: (tokens, None))
        found.append(accuracy.generation(context).summary)
    assert found == [
        "no token is HF's: the first is HF's 7th best",
        "the first of 24 tokens is HF's; then HF's 7th best",
        "the first 2 of 24 tokens are HF's; then HF's 7th best",
    ]
    assert by_name(clean[0])["end_to_end"]["summary"] == "generate() drives it: 16 tokens, all HF's"


def test_logits_of_another_width_say_so(job):
    def build(hf_model, device, max_seq_len):
        model = job(ALLAM).model_file.module.build_model(hf_model, device, max_seq_len)
        logits = model.logits
        model.logits = lambda x: ttnn.slice(logits(x), (0, 0, 0, 0), (1, 1, x.shape[-2], 64))
        return model

    import ttnn

    check = checks.run(job(ALLAM), quick=True, items=["full_decode", "teacher_forcing"], build=build)
    vocabulary = job(ALLAM).config.vocab_size
    for item in check["items"]:
        assert "ValueError" in item["summary"]
        assert f"logits have 64 columns, the vocabulary is {vocabulary}" in item["evidence"][0]


@pytest.mark.parametrize(("returned", "kind"), [(lambda out: out.logits, "Tensor"), (lambda out: out[:2], "tuple")])
def test_a_forward_that_returns_something_else_is_told_what_to_return(job, returned, kind):
    def build(hf_model, device, max_seq_len):
        model = job(ALLAM).model_file.module.build_model(hf_model, device, max_seq_len)
        forward = model.forward
        model.forward = lambda *args, **kwargs: returned(forward(*args, **kwargs))
        return model

    check = checks.run(job(ALLAM), quick=True, items=["full_decode", "end_to_end"], build=build)
    want = f"forward must return CausalLMOutputWithPast (logits, past_key_values), not {kind}"
    assert [item["summary"] for item in check["items"]] == [want] * 2


def item(name, status, summary, *evidence):
    return {"name": name, "status": status, "summary": summary, "evidence": list(evidence), "hint": None}


def test_on_the_screen_a_cause_is_told_once():
    apart = "layer 0, mlp: relative L2 2: all zeros (prefill)"
    items = [
        item("decoder_layer", "fail", apart, "its own"),
        item("full_decode", "fail", "model.py:8: RuntimeError while asking about decode", "  no", apart),
        item("generation", "fail", apart, "its own too"),
        item("prefill", "fail", "model.py:8: RuntimeError: no"),
        item("end_to_end", "fail", "model.py:8: RuntimeError while running generate()", "  another"),
        item("multi_device", "skipped", "the model was not built: model.py:9: ValueError while building the model"),
    ]
    text = table.text({"items": items, "verdict": "fail", "seconds": 1})
    assert text.splitlines()[:-1] == [
        f"FAIL decoder_layer: {apart}",
        "     its own",
        "FAIL full_decode: model.py:8: RuntimeError while asking about decode",
        "       no",
        "FAIL generation: as decoder_layer: layer 0, mlp",
        "     its own too",
        "FAIL prefill: as full_decode: model.py:8: RuntimeError",
        "FAIL end_to_end: model.py:8: RuntimeError while running generate()",
        "       another",
        "skipped multi_device: the model was not built",
    ]


def test_some_items_do_not_replace_the_report_of_all():
    check = {"hf_id": None, "checkpoint": "checkpoints/tiny-allam", "system": "n150"}
    assert str(one.default_folder(check, None)) == "reports/tiny-allam-n150"
    assert str(one.default_folder(check, ["baseline"])) == "reports/tiny-allam-n150-items"


def test_long_questions_show_their_passes(job, monkeypatch):
    from bringup import console

    told = []
    monkeypatch.setattr(console, "instead", lambda *progress: told.append(progress))
    checks.run(job(ALLAM), quick=True, items=["full_decode", "generation", "prefill", "end_to_end"])
    ends = {text: (done, total) for text, done, total in told}
    for text in ("decode", "cache end", "prefill against decode", "prompt lengths", "second prompt"):
        done, total = ends[f"{text}, passes"]
        assert done == total > 1, text
    assert ends["layer by layer, passes"] == (17, 17)
    assert ends["generation (emulator), tokens"] == (24, 24)


def test_unknown_items():
    with pytest.raises(BadInput, match="no such item"):
        checklist.chosen(["baseline", "decode_module"])


def test_exit_codes(tmp_path, capsys):
    allam = [ALLAM, "--model", "checkpoints/tiny-allam", "--cache_dir", str(tmp_path), "--out", str(tmp_path / "out")]
    failing = [FAILING, *allam[1:]]
    assert cli.main(["check", *allam, "--quick", "--items", "baseline"]) == 0
    assert "PASS: 1 passed" in capsys.readouterr().out
    assert (tmp_path / "out" / "check.json").is_file()
    assert cli.main(["check", *failing, "--quick", "--items", "full_decode"]) == 1
    assert f"{FAILING}:8" in capsys.readouterr().out
    assert cli.main(["check", *allam, "--items", "nonsense"]) == 2
    assert cli.main(["check", *allam, "--items", "baseline", "--write"]) == 2
    assert cli.main(["check", "no/such/model.py"]) == 2
