"""Who computes which head, and that cut weights are the HF weights."""

import pytest
import torch
import ttnn
from hypothesis import given
from hypothesis import strategies as st

from bringup.blocks import weights
from bringup.blocks.parallel import Heads, Mesh


@given(st.integers(1, 40), st.integers(1, 8), st.sampled_from([1, 2, 4, 8]))
def test_every_query_head_is_computed_once_beside_its_kv_head(n_kv, group, chips):
    heads = Heads.over(chips, n_kv * group, n_kv)
    seen = []
    for query, kv in zip(heads.query, heads.kv, strict=True):
        assert len(query) == heads.n_query
        assert len(kv) == heads.n_kv
        assert heads.n_query % heads.n_kv == 0
        per_kv = heads.n_query // heads.n_kv
        for i, h in enumerate(query):
            if h is not None:
                seen.append(h)
                assert kv[i // per_kv] == h // group, "attention pairs query head i with KV head i // per_kv"
    assert sorted(seen) == list(range(n_kv * group))


def test_the_four_models_on_eight_chips():
    llama, afm = Heads.over(8, 32, 8), Heads.over(8, 20, 4)
    assert (llama.n_query, llama.n_kv) == (4, 1)
    assert llama.query[7] == (28, 29, 30, 31)
    assert (afm.n_query, afm.n_kv) == (3, 1)
    assert afm.query[:3] == ((0, 1, 2), (3, 4, None), (5, 6, 7))
    assert [kv[0] for kv in afm.kv] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_heads_that_do_not_group_are_refused():
    with pytest.raises(ValueError, match="20 query heads are not a multiple of 3 KV heads"):
        Heads.over(2, 20, 3)


def shards(x):
    return [ttnn.to_torch(t).float() for t in ttnn.get_device_tensors(x)]


def test_cut_weights_put_together_are_the_hf_weight(mesh_device):
    mesh = Mesh(mesh_device)
    torch.manual_seed(0)
    weight = torch.randn(100, 72).bfloat16().float()  # no mesh divides 100 or 72 into whole tiles
    columns = torch.cat(shards(weights.column(weight, mesh, ttnn.bfloat16)), dim=3)[0, 0]
    assert torch.equal(columns[:, :100], weight.T)
    assert not columns[:, 100:].any()
    rows = torch.cat(shards(weights.row(weight, mesh, ttnn.bfloat16)), dim=2)[0, 0]
    assert torch.equal(rows[:72], weight.T)
    assert not rows[72:].any()
    for copy in shards(weights.replicated(weight, mesh, ttnn.bfloat16)):
        assert torch.equal(copy[0, 0], weight.T)


@pytest.mark.parametrize(("n_heads", "n_kv"), [(8, 2), (10, 2), (8, 8), (12, 12)])
def test_each_chip_has_its_heads_of_q_k_v_and_o(mesh_device, n_heads, n_kv):
    mesh, d, hidden = Mesh(mesh_device), 32, 64
    order = tuple(range(d))
    heads = Heads.over(mesh.tensor_ways, n_heads, n_kv)
    torch.manual_seed(0)
    q, k, v = (torch.randn(n * d, hidden).bfloat16().float() for n in (n_heads, n_kv, n_kv))
    o = torch.randn(hidden, n_heads * d).bfloat16().float()

    def rows(weight, which):
        zero = torch.zeros(d, weight.shape[1])
        return torch.cat([zero if h is None else weight[h * d : (h + 1) * d] for h in which])

    qkv = shards(weights.fused_qkv(q, k, v, heads, order, order, mesh, ttnn.bfloat16))
    out = shards(weights.attention_output(o, heads, order, mesh, ttnn.bfloat16))
    for chip in range(mesh.chips):
        want = torch.cat([rows(q, heads.query[chip]), rows(k, heads.kv[chip]), rows(v, heads.kv[chip])])
        assert torch.equal(qkv[chip][0, 0].T, want)
        assert torch.equal(out[chip][0, 0], rows(o.T, heads.query[chip]))


def test_data_parallel_keeps_weights_whole(mesh_device):
    mesh = Mesh(mesh_device, data_parallel=True)
    weight = torch.randn(96, 64).bfloat16().float()
    for put in (weights.column, weights.row, weights.replicated):
        for copy in shards(put(weight, mesh, ttnn.bfloat16)):
            assert torch.equal(copy[0, 0], weight.T)
