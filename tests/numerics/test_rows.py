"""Repeated slices: held once, computed once, and never to be told from whole tensors."""

import pytest
import torch

import ttnn_emulator as ttnn
from ttnn_emulator.numerics.rows import EACH, Repeated, Slices, numbered, repeated, slice_wise


def some(index, dim=-2, shape=(1, 1, 32, 64)):
    """A tensor whose slices along `dim` repeat as `index` says, whole and held by its slices."""
    kept = list(shape)
    kept[dim] = max(index) + 1
    kept = torch.randn(kept, generator=torch.Generator().manual_seed(len(set(index)))).bfloat16()
    return kept.index_select(dim, torch.tensor(index)), Repeated(kept, index, dim)


ONE_USER, TWO_USERS = (0,) + (1,) * 31, (0, 1) + (2,) * 30


@pytest.mark.parametrize("index", [ONE_USER, TWO_USERS, (0,) * 32])
def test_repetitions_are_found(index):
    whole, _ = some(index)
    found = repeated(whole)
    assert found.index == index
    assert torch.equal(found.whole(), whole)


def test_different_rows_are_left_alone():
    assert repeated(torch.randn(1, 1, 32, 64).bfloat16()) is None
    assert repeated(torch.zeros(2, 1, 32, 64).bfloat16()) is None  # not rows of one matrix
    assert repeated(torch.zeros(1, 1, 128, 64).bfloat16()) is None  # a prompt


def test_numbered_is_in_order_of_appearance():
    assert numbered("cabac") == ((0, 1, 2, 1, 0), [0, 1, 2])


@pytest.mark.parametrize(
    ("shape", "stays"), [((1, 32, 1, 64), True), ((32, 64), True), ((1, 1, 32, 2, 32), True), ((1, 1, 64, 32), False)]
)
def test_reshape(shape, stays):
    whole, held = some(ONE_USER)
    again = held.reshape(shape)
    assert (type(again) is Repeated) == stays
    assert tuple(again.shape) == shape
    assert torch.equal(again.whole() if stays else again, whole.reshape(shape))


@pytest.mark.parametrize(
    ("a", "b"), [(ONE_USER, ONE_USER), (ONE_USER, TWO_USERS), ((0,) * 32, TWO_USERS), (tuple(range(16)) * 2, ONE_USER)]
)
def test_each_sees_what_whole_tensors_would_give(a, b):
    (wa, ha), (wb, hb) = some(a), some(b)
    vector = torch.randn(1, 1, 1, 64).bfloat16()
    run = slice_wise(lambda x, y, v: x * y + v, EACH)
    got = run(ha, hb, vector)
    assert torch.equal(got.whole() if type(got) is Repeated else got, wa * wb + vector)
    assert torch.equal(run(ha, wb, vector), wa * wb + vector)  # a whole operand makes the result whole


def test_other_dims_than_the_ops_are_made_whole():
    whole, held = some(ONE_USER, dim=-3, shape=(1, 32, 4, 64))
    got = slice_wise(lambda x: x.cumsum(-3), Slices((-2,), -2))(held)
    assert torch.equal(got, whole.cumsum(-3))


@pytest.fixture(scope="module")
def device():
    device = ttnn.open_device(device_id=0)
    yield device
    ttnn.close_device(device)


def test_an_op_on_repeated_rows_is_the_op_on_all_rows(device):
    """One user among padding: norm, product, sum, activation, heads give the same bits however it is held."""
    tile = {"layout": ttnn.TILE_LAYOUT, "device": device}
    ids = ttnn.from_torch(torch.tensor([[7] + [0] * 31]), dtype=ttnn.uint32, device=device)
    table = ttnn.from_torch(torch.randn(16, 128).bfloat16(), device=device)
    w = ttnn.from_torch(torch.randn(128, 192).bfloat16(), **tile)

    def step(x):
        y = ttnn.silu(ttnn.linear(ttnn.rms_norm(x), w))
        q, k, _ = ttnn.experimental.nlp_create_qkv_heads_decode(y, num_heads=4, num_kv_heads=1)
        return [ttnn.add(y, y), q, k, ttnn.reshape(y, (1, 32, 1, 192))]

    held = ttnn.reshape(ttnn.embedding(ids, table, layout=ttnn.TILE_LAYOUT), (1, 1, 32, 128))
    assert type(held.held()[0]) is Repeated
    noise = ttnn.from_torch(torch.randn(1, 1, 32, 128).bfloat16(), **tile)
    whole = ttnn.add(ttnn.mul(noise, 0.0), held)
    assert type(whole.held()[0]) is torch.Tensor
    for a, b in zip(step(held), step(whole), strict=True):
        assert torch.equal(ttnn.to_torch(a), ttnn.to_torch(b)), a.spec


def test_writing_into_a_repeated_tensor_makes_it_whole(device):
    tile = {"layout": ttnn.TILE_LAYOUT, "device": device}
    x = ttnn.from_torch(torch.zeros(1, 1, 32, 64).bfloat16(), **tile)
    y, other = ttnn.rms_norm(x), ttnn.from_torch(torch.randn(1, 1, 32, 64).bfloat16(), **tile)
    assert type(y.held()[0]) is Repeated
    ttnn.copy(other, y)
    assert torch.equal(ttnn.to_torch(y), ttnn.to_torch(other))
