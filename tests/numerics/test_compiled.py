"""Compiled passes against the torch operations that they stand for, bit for bit."""

import pytest
import torch

from ttnn_emulator.numerics import (
    ComputeConfig,
    common,
    default_config,
    exact,
    flash,
    flash_decode,
    flash_values,
    fpu,
    norms,
    rounding,
    vector,
)


def values(*shape, seed=0, wide=6):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g) * torch.exp2(torch.randint(-wide, wide, shape, generator=g).float())


def same(a, b):
    return torch.equal(a.contiguous().view(torch.int16), b.contiguous().view(torch.int16))


@pytest.mark.parametrize("exp_approx", [False, True])
def test_exponentials(exp_approx):
    s = values(3, 5, 64).bfloat16()
    s[..., 50:] = -torch.inf
    m = s.amax(-1, keepdim=True)
    step = flash._Flash(ComputeConfig("HiFi4", False, True, False), 0.125, exp_approx, wide=False)
    v = fpu.sub(s, m, True)
    want = vector.exp_unclamped(v, 0.125) if exp_approx else vector.exp_accurate(v * 0.125)
    assert same(step.exponentials(s, m), step.packed(want))


def test_polynomial_and_reciprocal():
    v = torch.cat([-values(4000, wide=8).abs(), torch.tensor([0.0, -0.0, -torch.inf, -1e30, torch.nan])])
    out = torch.empty_like(v)
    flash_values.exp_polynomial(v.numpy(), out.numpy())
    want = vector.exp_polynomial(v, 4)
    assert torch.equal(out.nan_to_num(), want.nan_to_num())
    x = torch.cat([values(4000, wide=60), torch.tensor([0.0, -0.0, 1e-39, torch.inf])])
    for steps in (1, 2):
        flash_values.reciprocal(x.numpy(), steps, out[: x.numel()].numpy())
        assert torch.equal(out[: x.numel()], vector.reciprocal(x, steps))


@pytest.mark.parametrize(
    ("x", "table"), [((1, 4, 5, 64), (1, 1, 5, 64)), ((1, 3, 4, 32), (1, 3, 1, 32)), ((7, 96), (1, 96))]
)
def test_rotary(x, table):
    x, cos, sin = values(*x).bfloat16(), values(*table, seed=1).bfloat16(), values(*table, seed=2).bfloat16()
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    want = fpu.add(fpu.mul(x, cos, "HiFi4"), fpu.mul(turned, sin, "HiFi4"))
    assert same(common.rotary(x, cos, sin, default_config("rotary"), "bfloat16"), want)


@pytest.mark.parametrize("fidelity", fpu.PHASES)
@pytest.mark.parametrize("fp32", [False, True])
def test_rms_norm(fidelity, fp32):
    x, w = values(19, 96, wide=12).bfloat16(), values(1, 96, seed=3).bfloat16()
    eps = torch.tensor(1e-5).bfloat16()
    square = fpu.row_sum(fpu.mul(x, x, fidelity, fp32), fidelity, fp32).float() * vector.f32(1 / 96)
    mean = square if fp32 else rounding.to_bf16_truncated(square)
    r = fpu.add(mean, eps, fp32).double().rsqrt().float()
    y = fpu.mul(fpu.mul(x, r if fp32 else r.to(torch.bfloat16), fidelity, fp32), w, fidelity, fp32)
    got = norms.rms_norm(x, w, None, 1e-5, ComputeConfig(fidelity, False, fp32, False), "bfloat16")
    assert same(got, common.stored(y, "bfloat16"))


def in_steps(monkeypatch, q, k, v, positions, **how):
    """`exact.attention_decode` without its compiled pass."""
    with monkeypatch.context() as m:
        m.setattr(flash._Flash, "decode_on_cpu", lambda *_: None)
        return exact.attention_decode(q, k, v, positions, **how)


@pytest.mark.parametrize(
    "config", [ComputeConfig("HiFi4", False, True, False), ComputeConfig("HiFi2", True, False, False)]
)
def test_decode_in_one_pass(config, monkeypatch):
    """Against the steps that follow the kernels."""
    monkeypatch.setattr(flash_decode, "WORTH", 0)
    q = values(1, 3, 8, 64, wide=1).bfloat16()
    k, v = (values(3, 2, 128, 64, seed=s, wide=1).bfloat16() for s in (1, 2))
    for exp_approx in (False, True):
        for positions in ([127, 0, 40], [-1, 64, 31], [95, 96, 97]):
            how = dict(config=config, exp_approx=exp_approx, k_chunk=32, cores=1)
            got = exact.attention_decode(q, k, v, positions, **how)
            assert same(got, in_steps(monkeypatch, q, k, v, positions, **how)), (exp_approx, positions)


@pytest.mark.parametrize("fidelity", ["LoFi", "HiFi3"])
@pytest.mark.parametrize("window", [None, 70])
@pytest.mark.parametrize("cores", [2, 3, 5])
@pytest.mark.parametrize("sinks", [False, True])
def test_decode_of_several_cores_with_windows_and_sinks_in_one_pass(fidelity, window, cores, sinks, monkeypatch):
    monkeypatch.setattr(flash_decode, "WORTH", 0)
    q = values(1, 3, 8, 64, wide=1).bfloat16()
    k, v = (values(3, 2, 256, 64, seed=s, wide=1).bfloat16() for s in (1, 2))
    config = ComputeConfig(fidelity, False, True, False)
    for approximate, chunk in ((False, 32), (True, 64), (False, 0)):
        how = dict(config=config, exp_approx=approximate, k_chunk=chunk, cores=cores, sliding_window=window)
        how["sink"] = values(8, seed=3, wide=1).bfloat16() if sinks else None
        for positions in ([255, 0, 131], [-1, 200, 63]):
            got = exact.attention_decode(q, k, v, positions, **how)
            assert same(got, in_steps(monkeypatch, q, k, v, positions, **how)), (approximate, chunk, positions)


def test_decode_with_values_too_large_for_one_pass(monkeypatch):
    monkeypatch.setattr(flash_decode, "WORTH", 0)
    config = ComputeConfig("HiFi4", False, True, False)
    q, k, v = (values(*s).bfloat16() for s in ((1, 1, 2, 32), (1, 1, 32, 32), (1, 1, 32, 32)))
    v[0, 0, 3, 5] = 2.0**120
    how = dict(config=config, k_chunk=32, cores=1)
    got = exact.attention_decode(q, k, v, [20], **how)
    assert same(got, in_steps(monkeypatch, q, k, v, [20], **how))


def test_a_compilation_is_announced_once(capsys):
    from numba import njit

    from ttnn_emulator.numerics import compiling

    def one(x):
        return x + 1

    def two(x):
        return x + 2

    for function in (one, two):
        function.__module__ = "ttnn_emulator.numerics.made_up"
    before, compiling.notice.said = compiling.notice.said, False
    try:
        assert njit(lambda x: x)(1) == 1
        assert capsys.readouterr().err == ""
        assert njit(one)(1) + njit(two)(1) == 5
        assert capsys.readouterr().err.count("compiling kernels for this processor") == 1
    finally:
        compiling.notice.said = before
