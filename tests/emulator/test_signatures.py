"""What an op can be given by name is what ttnn 0.81.1 takes: no more, and no less.

`tests/data/signatures.txt` is the names of every op's arguments, all its overloads together (those after `*` by name
only), read off the library: an op that is called with a name that none has lists them.
"""

import ast
import inspect
from pathlib import Path

import pytest

import ttnn_emulator as ttnn
from ttnn_emulator.op import REGISTRY

RECORD = Path(__file__).parents[1] / "data" / "signatures.txt"
#: Op -> (arguments that may be named, all by position first).
LIBRARY = {
    op: (positional.split(), by_name.split())
    for op, _, arguments in (line.partition(": ") for line in RECORD.read_text().splitlines())
    for positional, _, by_name in [arguments.partition("* ")]
}


def test_the_record_is_of_ops_that_are_here():
    assert len(LIBRARY) > 280
    assert LIBRARY.keys() <= REGISTRY.keys()


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_arguments_are_the_librarys(name):
    mine = inspect.signature(REGISTRY[name]).parameters.values()
    by_position, by_name = LIBRARY[name]
    if any(p.kind is p.VAR_KEYWORD for p in mine):
        pytest.skip("looks at its keywords itself")
    named = {p.name for p in mine if p.kind is not p.VAR_POSITIONAL} - {"self"}
    theirs = {*by_position, *by_name}
    assert not theirs - named, f"{name} does not know {sorted(theirs - named)}, which the library takes"
    if theirs:
        assert not named - theirs, f"{name} takes {sorted(named - theirs)}, which the library refuses"


@pytest.fixture(scope="module")
def operand():
    device = ttnn.open_device(device_id=0)
    yield ttnn.zeros((1, 1, 32, 32), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
    ttnn.close_device(device)


@pytest.mark.parametrize(
    "call",
    [  # ttnn 0.81.1 raises TypeError for each
        lambda x: ttnn.eq_(x, x, fast_and_approximate_mode=True),
        lambda x: ttnn.max(x, -1, output_layout=ttnn.TILE_LAYOUT),
        lambda x: ttnn.layer_norm_pre_all_gather(x, use_2d_core_grid=True),
        lambda x: ttnn.swiglu(x, -1, variant=ttnn.GeluVariant.Tanh),
        lambda x: ttnn.pad(x, (1, 1, 64, 64), (0, 0, 0, 0), fill=0.0),
        lambda x: ttnn.mac(x, x),
        lambda x: ttnn.rsub(2.0, x),
        lambda x: ttnn.view(x, 1, 1, 32, 32),
        lambda x: ttnn.CoreRangeSet(ttnn.CoreRange((0, 0), (1, 1))),
    ],
)
def test_what_an_op_of_a_family_lacks_is_a_type_error(operand, call):
    with pytest.raises(TypeError, match="incompatible function arguments|arguments"):
        call(operand)


def test_forms_that_only_one_op_of_a_family_has(operand):
    x = ttnn.ones_like(operand)
    wide = ttnn.concat([x, x], -1)
    assert ttnn.to_torch(ttnn.mac(x, value1=2.0, value2=0.5)).unique().tolist() == [2.5]
    assert ttnn.to_torch(ttnn.mac(x, value=3.0, input_tensor_c=x)).unique().tolist() == [4]
    assert ttnn.to_torch(ttnn.rsub(x, input_b=3.0)).unique().tolist() == [2]
    assert ttnn.to_torch(ttnn.assign(input_a=x, input_b=ttnn.zeros_like(x))).unique().tolist() == [1]
    assert ttnn.experimental.view(wide, 1, 1, 32, 64).shape == (1, 1, 32, 64)
    plain, tanh = (
        ttnn.to_torch(ttnn.geglu(wide, -1, variant=v)) for v in (ttnn.GeluVariant.Accurate, ttnn.GeluVariant.Tanh)
    )
    assert plain.shape == tanh.shape == (1, 1, 32, 32)
    assert abs(plain - tanh).max() < 0.01


@pytest.mark.parametrize(
    "call",
    [
        lambda x: ttnn.matmul(x, x, output_tile=(16, 32)),
        lambda x: ttnn.linear(x, x, output_tile=(16, 32)),
        lambda x: ttnn.addmm(x, x, x, output_tile=(16, 32)),
        lambda x: ttnn.sum(x, -1, fast_and_approximate_mode=True),
        lambda x: ttnn.layer_norm_pre_all_gather(x, recip_tensor=x),
        lambda x: ttnn.rms_norm_pre_all_gather(x, fast_and_approximate_mode=True),
        lambda x: ttnn.sigmoid(x, vector_mode=2),
        lambda x: ttnn.scale_mask_softmax(x, 1.0, x, is_causal_mask=True),
        lambda x: ttnn.scale_mask_softmax_in_place(x, 1.0, x, is_causal_mask=True),
        lambda x: ttnn.transformer.attention_softmax(x, causal_mask=True),
        lambda x: ttnn.transformer.attention_softmax_(x, attention_mask=x, causal_mask=True),
    ],
)
def test_an_argument_that_would_change_values_and_has_no_model_is_not_taken_in_silence(operand, call):
    with pytest.raises(ttnn.NotEmulated, match="has no model in the emulator"):
        call(operand)


#: What ops take and do not look at: it says where and how a result is made, or what lies in padding that no op reads.
WHERE_AND_HOW = {
    "sub_core_grids", "sub_device_id", "subdevice_id", "core_grid", "use_multicore", "use_low_perf", "use_2d_core_grid",
    "keep_l1_aligned", "enable_secondary_dm", "barrier_semaphore", "chunks_per_sync", "num_workers_per_link",
    "num_buffers_per_channel", "use_l1_small_for_semaphores", "topology", "blocking", "cq_id", "skip_padding_fill",
    "reshape_tile_mode", "pad_value", "fill_value", "cache_file_name", "cache_dump_mode", "enable_bfloat_opt",
}  # fmt: skip
#: Of one op each: no arithmetic there, the library looks at it neither, or it is what the op makes anyway.
ALONE = {
    ("reduce_scatter_minimal_async", "compute_kernel_config"), ("clone", "compute_kernel_config"),
    ("paged_fill_cache", "compute_kernel_config"), ("update_cache", "compute_kernel_config"),
    ("deepseek_moe_fast_reduce_nc", "compute_kernel_config"), ("ema", "compute_kernel_config"),
    ("dump_tensor", "mode"), ("tilize", "tile"), ("from_torch", "tile"), ("from_torch", "preserve_nan_values"),
    ("to_torch", "device"), ("embedding", "padding_idx"), ("nlp_create_qkv_heads_decode", "memory_config"),
    ("nlp_concat_heads_decode", "memory_config"), ("softmax_in_place", "program_config"),
    ("scale_mask_softmax_in_place", "program_config"), ("attention_softmax", "program_config"),
    ("attention_softmax_", "program_config"), ("attention_softmax_", "memory_config"), ("topk", "sorted"),
    ("topk", "stable"), ("sort", "stable"), ("call", "correction"), ("chunk_gated_delta_rule", "eye"),
    ("chunk_gated_delta_rule", "tril"), ("chunk_gated_delta_rule", "ones"), ("chunk_gated_delta_rule", "masks"),
    ("randn", "compute_kernel_config"), ("bernoulli", "compute_kernel_config"), ("uniform", "compute_kernel_config"),
    ("uniform", "memory_config"),
}  # fmt: skip


def test_no_other_argument_of_an_op_is_ignored():
    ignored = set()
    for path in (Path(ttnn.__file__).parent / "ops").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any(ast.unparse(d).startswith("op(") for d in node.decorator_list):
                read = {name.id for line in node.body for name in ast.walk(line) if isinstance(name, ast.Name)}
                arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                ignored |= {(node.name, a.arg) for a in arguments if a.arg not in read and "locals" not in read}
    assert len(ignored) > 50
    assert {each for each in ignored if each[1] not in WHERE_AND_HOW} == ALONE
