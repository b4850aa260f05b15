"""Bytes and contexts against arithmetic by hand, sizes recorded from the library, and the emulated allocator."""

import pytest

from bringup import backends
from bringup.backends import systems
from bringup.blocks.parallel import Heads
from bringup.errors import BadInput
from bringup.planning.formats import Formats
from bringup.planning.memory import Memory, check_longest, smallest_system
from bringup.planning.shapes import bank_bytes, heads_per_chip
from bringup.planning.spec_run import find_model_file, spec_run
from tests.planning.common import true_config

LLAMA, ALLAM = "meta-llama/Llama-3.2-1B", "humain-ai/ALLaM-7B-Instruct-preview"
AFM, MISTRAL = "arcee-ai/AFM-4.5B", "mistralai/Mistral-7B-Instruct-v0.3"


def memory(hf_id, system, weights="bf16", cache="bf16"):
    return Memory(true_config(hf_id), systems.get(system), Formats.parse(weights, cache))


@pytest.mark.parametrize(
    ("shape", "dtype", "rows", "bytes_per_bank"),
    [
        ((1, 1, 32, 384), "bf16", False, 2048),
        ((1, 1, 32, 416), "bf16", False, 4096),
        ((1, 1, 32, 416), "bfp8", False, 2176),
        ((1, 1, 32, 416), "bfp4", False, 1152),
        ((4096, 14336), "bfp8", False, 5_199_552),
        ((128256, 2048), "bf16", True, 43_778_048),
        ((8, 1, 1024, 128), "bfp8", False, 93_568),
        ((1, 1, 13, 100), "bf16", True, 448),
    ],
)
def test_a_tensor_takes_what_the_library_was_seen_to_allocate(shape, dtype, rows, bytes_per_bank):
    """ttnn 0.81.1: get_memory_view of a mock n150 before and after."""
    assert bank_bytes(shape, dtype, systems.get("n150").chip, rows) == 12 * bytes_per_bank


def test_blackhole_deals_over_its_own_banks():
    """ttnn 0.81.1 on p150: 8 banks, row-major pages of whole 64 bytes."""
    chip = systems.get("p150").chip
    assert bank_bytes((1, 1, 32, 416), "bf16", chip) == 8 * 2 * 2048
    assert bank_bytes((1, 1, 13, 100), "bf16", chip, rows=True) == 8 * 2 * 256
    for hf_id, system in ((LLAMA, "p150"), (AFM, "p300x2")):
        m = memory(hf_id, system, "bf16")
        found = spec_run(find_model_file(hf_id, system), m.config, system, max_seq_len=512, prompt=200)
        assert m.held(512) == pytest.approx(found.built["dram"]["allocated"], rel=0.0001)


def tiles(height, width, tile_bytes):
    """Tiles dealt over 12 banks."""
    n = (height // 32) * (width // 32)
    return (n + 11) // 12 * 12 * tile_bytes


def test_llamas_weights_cache_and_rope_by_hand():
    m = memory(LLAMA, "n150", "attention=bf16,mlp=bfp8,head=bfp4")
    attention = tiles(2048, 2048 + 2 * 512, 2048) + tiles(2048, 2048, 2048)
    mlp = 2 * tiles(2048, 8192, 1088) + tiles(8192, 2048, 1088)
    norm = tiles(32, 2048, 2048)
    assert m.weights == {
        "attention": 16 * attention,
        "mlp": 16 * mlp,
        "head": tiles(2048, 128256, 576),
        "embedding": 12 * ((128256 + 11) // 12) * 2 * 2048,
        "norms": 33 * norm,
    }
    assert m.shapes.cache_bytes(1024) == 2 * 16 * tiles(32 * 8 * 1024, 64, 2048)
    blocks = 4 * 1024 // 64 + 1
    table = 12 * 3 * 64  # 32 rows of 16 int32 over 12 banks
    assert m.shapes.paged_cache_bytes(1024, users=4) == 2 * 16 * tiles(blocks * 8 * 64, 64, 2048) + table
    assert m.shapes.rope_bytes(1024) == 2 * (tiles(1024, 64, 2048) + 12 * 86 * 128)


@pytest.mark.parametrize(
    ("hf_id", "system", "weights"),
    [(LLAMA, "n150", "bf16"), (LLAMA, "t3000", "attention=bfp8,mlp=bfp4"), (AFM, "n300", "bfp8"),
     (AFM, "t3000", "bf16"), (MISTRAL, "n150", "bfp8"), (ALLAM, "t3000", "bfp4")],
)  # fmt: skip
def test_the_count_is_the_allocators(hf_id, system, weights):
    m = memory(hf_id, system, weights)
    file = find_model_file(hf_id, system)
    found = spec_run(file, m.config, system, max_seq_len=512, prompt=200, formats=m.formats)
    assert m.held(512) == pytest.approx(found.built["dram"]["allocated"], rel=0.0001)
    assert found.activations("prefill") == pytest.approx(m.shapes.activation_bytes(200), rel=0.1)
    assert found.activations("decode") > 0
    assert found.peaks["decode"]["l1"] > 0, "heads are sharded over L1 in decode"


@pytest.mark.parametrize(
    ("hf_id", "system", "weights"),
    [("Qwen/Qwen3.5-0.8B", "n150", "bf16"), pytest.param("openai/gpt-oss-20b", "p300", "bfp8", marks=pytest.mark.slow)],
)
def test_states_and_experts_are_counted_as_the_allocator_has_them(hf_id, system, weights):
    m = memory(hf_id, system, weights)
    found = spec_run(find_model_file(hf_id, system), m.config, system, max_seq_len=512, prompt=64, formats=m.formats)
    assert m.held(512) == pytest.approx(found.built["dram"]["allocated"], rel=0.01)


@pytest.mark.parametrize(("hf_id", "system", "weights"), [(LLAMA, "n150", "bf16"), (MISTRAL, "n300", "bfp8")])
def test_the_longest_context_runs_and_little_more_does_not_fit(hf_id, system, weights):
    m = memory(hf_id, system, weights)
    longest = m.longest_contexts()
    ran = check_longest(find_model_file(hf_id, system), m.config, system, m.formats, longest)
    assert ran["unpaged"]["context"] == longest["unpaged"]
    assert m.needed(longest["unpaged"]) <= m.total < m.needed(longest["unpaged"] + 32)
    assert m.held(longest["unpaged"]) > 0.9 * m.total - m.shapes.activation_bytes(longest["unpaged"])


def test_paged_contexts_grow_as_users_go():
    paged = memory(LLAMA, "n150").longest_contexts()["paged"]
    assert paged["1"] == 131072, "its own limit"
    assert paged["1"] > paged["8"] > paged["32"] > 0
    assert all(context % 64 == 0 for context in paged.values())


def test_a_smaller_cache_dtype_holds_more():
    assert memory(MISTRAL, "n150", "bfp8", cache="bfp8").longest() > 1.8 * memory(MISTRAL, "n150", "bfp8").longest()


def test_the_smallest_system_that_holds_it():
    config = true_config(MISTRAL)
    assert smallest_system(config, Formats.parse("bfp8"), 1024, 1) == "n150"
    assert smallest_system(config, Formats.parse("bf16"), 1024, 1) == "n300"
    assert smallest_system(config, Formats.parse("bf16"), 4096, 32) == "p150"
    assert smallest_system(config, Formats.parse("bf16"), 32768, 32) == "p150x8"
    assert smallest_system(true_config(ALLAM), Formats.parse("bf16", "bf16"), 4096, 32) == "t3000"


@pytest.mark.parametrize(
    ("ways", "n_heads", "n_kv_heads"),
    [(1, 32, 8), (2, 20, 4), (8, 20, 4), (8, 32, 32), (8, 14, 2), (2, 14, 2), (8, 9, 3)],
)
def test_heads_are_shared_as_the_blocks_share_them(ways, n_heads, n_kv_heads):
    heads = Heads.over(ways, n_heads, n_kv_heads)
    assert heads_per_chip(ways, n_heads, n_kv_heads) == (heads.n_query, heads.n_kv)


def test_what_tensor_parallelism_costs():
    rows = {r["what"]: r for r in memory(AFM, "t3000", "bf16").shapes.tensor_parallel()}
    assert (rows["query heads"]["per_chip"], rows["query heads"]["divides"]) == (3, False)
    assert (rows["KV heads"]["per_chip"], rows["KV heads"]["divides"]) == (1, False)
    assert rows["MLP"]["divides"]
    assert rows["MLP"]["padding_bytes"] == 0
    # 24 query heads where there are 20, 8 copies of K and V where there are 4: of each chip's share, in 36 layers.
    share = 36 * 2 * 128 * 2560 * (2 * (3 - 20 / 8) + 2 * (1 - 4 / 8))
    assert rows["query heads"]["padding_bytes"] == pytest.approx(share, rel=0.01)
    one_chip = memory(AFM, "n150", "bf16").shapes.tensor_parallel()
    assert all(r["divides"] for r in one_chip)


def test_formats_are_said_in_either_spelling():
    assert Formats.parse("bfloat8_b") == Formats("bfp8", "bfp8", "bfp8", "bf16")
    assert Formats.parse("mlp=bfp4,head=bfp8", "bfp8") == Formats("bf16", "bfp4", "bfp8", "bfp8")
    for wrong in ("fp8", "mlp", "mlps=bfp8", "mlp="):
        with pytest.raises(BadInput):
            Formats.parse(wrong)


def test_the_device_is_closed_when_a_model_does_not_fit():
    m = memory(MISTRAL, "n150", "bf16")
    with pytest.raises(Exception, match="does not fit"):
        spec_run(find_model_file(MISTRAL, "n150"), m.config, "n150", max_seq_len=512, prompt=64, formats=m.formats)
    with backends.open_system("n150") as device:
        assert backends.memory(device)["dram"]["allocated"] == 0
