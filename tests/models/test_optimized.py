"""Every optimised file with a small random model: its logits are HF's where its formats are bfloat16, its tokens those
of its logits, traced or not; and what its choices may be."""

import json
from dataclasses import replace

import pytest
import torch
import ttnn

from bringup import backends
from bringup.backends import model_files
from bringup.blocks.optimized import Choices
from bringup.blocks.optimized.choices import PRODUCTS
from bringup.blocks.precision import compute_config
from tests.blocks.common import APPROXIMATE_EXP, CONFIGS, MODELS, as_good_as_bf16, in_bf16, small_hf_model

FILES = sorted(MODELS.glob("*/*/*/optimized/model.py"))
NAMES = ["/".join(path.parts[-4:-2]) for path in FILES]


def test_there_is_one_for_every_model_on_four_systems():
    assert set(NAMES) == {f"{name}/{system}" for name in CONFIGS for system in ("n150", "n300", "t3000", "p150")}


def exact(choices):
    """The same programs on bfloat16, without the approximations of lower fidelities."""
    wide = ttnn.bfloat16
    return replace(
        choices, attention=wide, mlp=wide, up=wide, head=wide, cache=wide, fidelity=dict.fromkeys(PRODUCTS, "HiFi3"),
        sdpa=compute_config(), norm=compute_config(),
    )  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_prompt_and_steps_are_hfs_and_the_devices_tokens_are_the_likeliest(path):
    system, module = model_files.describe(path).system, model_files.import_file(path)
    hf = small_hf_model(path.parts[-4]).bfloat16().float()
    ids = torch.randint(3, 500, (2, 76), generator=torch.Generator().manual_seed(1))
    want, bf16 = hf(ids).logits, in_bf16(hf, ids).logits
    with backends.open_system(system, trace_region_size=64 << 20) as device:
        assert tuple(device.shape) == module.MESH_SHAPE
        model = module.build_model(hf, device, 128, exact(module.PRECISION))
        for length in (33, 74):  # a prompt of two tiles and one of three
            out = model(ids[:, :length], logits_to_keep=0)
            assert as_good_as_bf16(out.logits, want[:, :length], bf16[:, :length], model.mesh.chips)
            for i in range(length, length + 2):
                out = model(ids[:, i : i + 1], past_key_values=out.past_key_values)
                assert as_good_as_bf16(out.logits[:, 0], want[:, i], bf16[:, i], model.mesh.chips, APPROXIMATE_EXP)
        greedy = model.generate(ids[:, :40], max_new_tokens=6, do_sample=False)[:, 40:].T.tolist()
        for traced in (False, True, True):
            model.traced = traced
            assert tokens_by_device(model, ids[:, :40], 6) == greedy
        model.release_trace()


def tokens_by_device(model, ids, count):
    found, past = model.next_token_device(ids)
    made = [found]
    for _ in range(count - 1):
        found, past = model.next_token_device(torch.tensor(found)[:, None], past)
        made.append(found)
    return made


@torch.no_grad()
@pytest.mark.parametrize("cores", [4, 8])
def test_a_long_prompt_a_paged_cache_and_one_user(cores, monkeypatch):
    """A prompt beyond SHORT goes through DRAM; a token of the host's own is sent; a paged prompt is replayed."""
    from bringup.blocks import generate
    from bringup.blocks.cache import Blocks

    (path,) = MODELS.glob("*/ALLaM-7B-Instruct-preview/n150/optimized/model.py")
    module, hf = model_files.import_file(path), small_hf_model("ALLaM-7B-Instruct-preview").bfloat16().float()
    monkeypatch.setattr(generate, "check_fits", lambda *_: Blocks(512, 24))
    ids = torch.randint(3, 500, (1, 300), generator=torch.Generator().manual_seed(2))
    want, bf16 = hf(ids).logits, in_bf16(hf, ids).logits
    with backends.open_system("n150", trace_region_size=64 << 20) as device:
        model = module.build_model(hf, device, 512, replace(exact(module.PRECISION), cores=cores, inner=cores - 1))
        assert as_good_as_bf16(model(ids).logits, want, bf16, 1)
        model.traced = True
        for _ in range(2):
            token, past = model.next_token_device(ids[:, :50])
            assert token == int(want[0, 49].argmax())
            other, past = model.next_token_device(ids[:, 50:51], past)
            assert other == int(want[0, 50].argmax())


def test_choices_are_data_and_what_is_none_is_named():
    for path in FILES:
        data = json.loads(path.with_name("choices.json").read_text())
        assert Choices.of_data(data).as_data() == data
    for name, wrong in (("weights", {"attention": "bfloat9_b"}), ("fidelity", {"qkv": "HiFi5"}), ("sharded", ["gate"])):
        bad = data | {name: {**data[name], **wrong} if isinstance(wrong, dict) else wrong}
        with pytest.raises(ValueError, match=r"bfloat9_b|HiFi5|gate"):
            Choices.of_data(bad)
    with pytest.raises(ValueError, match="colour"):
        Choices.of_data(data | {"colour": 1})
