"""Figures against hand-made cases and independent formulas."""

import math

import pytest
import torch

from bringup.evaluation import metrics
from bringup.evaluation.metrics import Rate, compare, quantile, rank, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # R: prop.test(hits, n, correct = FALSE)$conf.int
        (98, 100, 0.9299882, 0.9944971),
        (100, 100, 0.9630065, 1.0),
        (0, 10, 0.0, 0.2775328),
        (1, 2, 0.0945312, 0.9054688),
    ],
)
def test_wilson(hits, n, low, high):
    assert wilson(hits, n) == pytest.approx((low, high), abs=1e-6)


def test_wilson_refuses_what_is_no_proportion():
    with pytest.raises(ValueError, match="3 hits of 2"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="0 hits of 0"):
        wilson(0, 0)


def test_rate_text():
    assert str(Rate(98, 100)) == "98.00% (0.9800)"


def logits(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_same_logits():
    x = torch.randn(5, 300)
    tokens = x.argmax(-1).tolist()
    c = compare(x, x, tokens)
    assert (c.top1.value, c.top5.value, c.top5_of_reference.value, c.garbage) == (1, 1, 1, 0)
    assert c.kl_worst == 0
    assert c.rel_l2 == 0
    assert c.pcc == pytest.approx(1)
    assert c.perplexity_device == c.perplexity_reference


def test_a_device_that_computes_nonsense_scores_nothing():
    """The trap: the reference token against the reference's own five best is always 100 %."""
    reference = torch.arange(200.0).repeat(10, 1)
    device = -reference
    c = compare(reference, device, [199] * 10)
    assert all(rank(row, 199) < 5 for row in reference), "what the wrong definition would have counted"
    assert c.top1.value == 0
    assert c.top5.value == 0
    assert c.top5_of_reference.value == 0
    assert c.garbage == 10


def test_the_two_definitions_of_top5_differ():
    reference = logits([9, 8, 7, 6, 5, 4, 3, 2])
    device = logits([3, 9, 8, 7, 6, 5, 0, 0])  # token 0 is its sixth; its best, token 1, is the reference's second
    c = compare(reference, device, [0])
    assert (c.top1.value, c.top5.value, c.top5_of_reference.value) == (0, 0, 1)
    device = logits([8, 0, 0, 0, 0, 0, 0, 9])  # token 0 is its second; its best, token 7, is the reference's last
    c = compare(reference, device, [0])
    assert (c.top1.value, c.top5.value, c.top5_of_reference.value) == (0, 1, 0)


def test_ties_share_the_better_rank():
    assert rank(torch.tensor([1.0, 2.0, 2.0, 0.0]), 2) == 0
    assert rank(torch.tensor([1.0, 2.0, 2.0, 0.0]), 0) == 2


def test_against_torch():
    torch.manual_seed(0)
    reference, device = torch.randn(7, 50) * 3, torch.randn(7, 50) * 3
    tokens = reference.argmax(-1).tolist()
    c = compare(reference, device, tokens)
    kl = torch.nn.functional.kl_div(device.log_softmax(-1), reference.softmax(-1), reduction="none").sum(-1)
    assert c.kl == pytest.approx(kl.tolist(), rel=1e-5)
    assert c.kl_mean == pytest.approx(kl.mean().item(), rel=1e-5)
    assert c.kl_worst == pytest.approx(kl.max().item(), rel=1e-5)
    assert c.rel_l2 == pytest.approx(((device - reference).norm() / reference.norm()).item(), rel=1e-5)
    assert c.pcc == pytest.approx(
        torch.corrcoef(torch.stack([reference.flatten(), device.flatten()]))[0, 1].item(), 1e-4
    )
    loss = torch.nn.functional.cross_entropy(device, torch.tensor(tokens))
    assert c.perplexity_device == pytest.approx(math.exp(loss), rel=1e-5)
    assert c.top1.hits == int((device.argmax(-1) == reference.argmax(-1)).sum())


def test_what_the_reference_forbids_is_forbidden_to_the_device():
    inf = float("inf")
    c = compare(logits([-inf, 5, 1]), logits([9, 5, 1]), [1])
    assert c.top1.value == 1
    assert c.kl_worst == pytest.approx(0, abs=1e-12)
    assert math.isfinite(c.rel_l2)


def test_an_infinite_logit_is_not_a_divergence_of_0():
    c = compare(logits([3, 2, 1], [3, 2, 1]), logits([3, 2, 1], [3, math.inf, 1]), [0, 0])
    assert c.kl[0] == 0
    assert math.isnan(c.kl[1])


def test_positions_hold_every_step():
    c = compare(logits([1, 2], [2, 1]), logits([1, 2], [1, 2]), [1, 0])
    assert [(p["token"], p["predicted"], p["top1"]) for p in c.positions()] == [(1, 1, True), (0, 1, False)]


def test_in_a_given_text_the_next_token_need_not_be_anybodys_best():
    reference, device = logits([3, 2, 1], [3, 2, 1]), logits([3, 2, 1], [1, 2, 3])
    c = compare(reference, device, [2, 1])
    assert (c.tokens, c.expected, c.predicted) == ([2, 1], [0, 0], [0, 2])
    assert c.top1.hits == 1
    z = math.exp(3) + math.exp(2) + math.exp(1)
    assert c.perplexity_reference == pytest.approx(math.sqrt(z / math.exp(1) * z / math.exp(2)))
    assert c.perplexity_device == pytest.approx(math.sqrt(z / math.exp(1) * z / math.exp(2)))
    c = compare(reference, device, [0, 0])
    assert c.perplexity_device == pytest.approx(math.sqrt(z / math.exp(3) * z / math.exp(1)))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="device \\[2, 3\\]"):
        compare(torch.zeros(2, 4), torch.zeros(2, 3), [0, 0])


def test_quantile():
    assert quantile(range(1, 101), 0.99) == 99
    assert quantile([5.0], 0.99) == 5.0


def test_intervals_of_means_and_of_paired_hits():
    mean, low, high = metrics.mean_interval([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5
    assert high - mean == pytest.approx(1.959964 * math.sqrt(5 / 3 / 4), rel=1e-5)
    assert mean - low == pytest.approx(high - mean)
    assert metrics.mean_interval([2.0]) == (2.0, 2.0, 2.0)
    assert metrics.paired_interval([1.5, 2.5]) == metrics.mean_interval([1.5, 2.5])
    # Agresti and Min (2005): 100 pairs, 5 for and 15 against; half a pair more in each cell.
    hits = [1] * 5 + [-1] * 15 + [0] * 80
    mean, low, high = metrics.paired_interval(hits)
    half = 1.959964 * math.sqrt(5.5 + 15.5 - 10 * 10 / 102) / 102
    assert (mean, low, high) == pytest.approx((-0.1, -10 / 102 - half, -10 / 102 + half), rel=1e-5)
    mean, low, high = metrics.paired_interval([0] * 10)
    assert mean == 0
    assert low == -high < 0, "ten questions without a difference prove little"
