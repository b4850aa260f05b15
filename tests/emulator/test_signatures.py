"""What an op can be given by name is what ttnn 0.81.1 takes: no more, and no less.

`tests/data/signatures.txt` is the names of every op's arguments, all its overloads together (those after `*` by name
only), read off the library: an op that is called with a name that none has lists them.
"""

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
