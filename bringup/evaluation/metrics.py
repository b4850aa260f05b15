"""Figures that compare two models' logits over the same tokens."""

import math
from dataclasses import dataclass

TOP1_BAR, TOP5_BAR = 0.90, 0.95  # of a bring-up: the vendor's bring-up guide


@dataclass(frozen=True)
class Rate:
    """`hits` of `n`, with its Wilson 95 % interval."""

    hits: int
    n: int

    @property
    def value(self):
        return self.hits / self.n

    @property
    def interval(self):
        return wilson(self.hits, self.n)

    def __str__(self):
        return f"{100 * self.value:.2f}% ({self.value:.4f})"

    def spread(self):
        low, high = self.interval
        return f"{100 * low:.1f} to {100 * high:.1f} %"


def mean_interval(values, z=1.959963984540054):
    """(mean, low, high): the normal 95 % interval of the mean of independent values, or no width for a single one."""
    n, mean = len(values), sum(values) / len(values)
    half = z * math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n) if n > 1 else 0.0
    return mean, mean - half, mean + half


def paired_interval(differences, z=1.959963984540054):
    """(mean, low, high) of paired differences at 95 %: of hits (-1, 0, 1) Agresti and Min's, which is no point where
    none differs; else the normal one."""
    if not set(differences) <= {-1, 0, 1}:
        return mean_interval(differences, z)
    n, total = len(differences) + 2, sum(differences)  # half a pair more in each of the four cells
    half = z * math.sqrt(sum(abs(d) for d in differences) + 1 - total * total / n) / n
    return total / (n - 2), max(-1.0, total / n - half), min(1.0, total / n + half)


def wilson(hits, n, z=1.959963984540054):
    """The Wilson score interval of a proportion; `z` is the normal quantile (95 % by default)."""
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"{hits} hits of {n}")
    p, z2n = hits / n, z * z / n
    centre = (p + z2n / 2) / (1 + z2n)
    half = z / (1 + z2n) * math.sqrt(p * (1 - p) / n + z2n / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Comparison:
    """A device against a reference, over n steps. Each list holds one value per step.

    tokens      what really came next: the reference's own greedy tokens, or those of a given text
    expected    the reference's argmax, the "reference token"; in its own greedy text the same as `tokens`
    top1        the device's argmax is the reference token
    top5        the reference token is among the device's five best (the headline)
    top5_of_reference   the device's argmax is among the reference's five best
    garbage     steps where the device's argmax is not among the reference's hundred best
    kl          KL(reference || device), in nats
    nll         of each on `tokens`, in nats; the perplexity is exp of its mean
    """

    tokens: list
    expected: list
    predicted: list
    top1_hits: list
    top5_hits: list
    top5_of_reference_hits: list
    garbage_hits: list
    kl: list
    rel_l2: float
    pcc: float
    nll_reference: list
    nll_device: list

    @property
    def n(self):
        return len(self.tokens)

    @property
    def top1(self):
        return Rate(sum(self.top1_hits), self.n)

    @property
    def top5(self):
        return Rate(sum(self.top5_hits), self.n)

    @property
    def top5_of_reference(self):
        return Rate(sum(self.top5_of_reference_hits), self.n)

    @property
    def garbage(self):
        return sum(self.garbage_hits)

    @property
    def kl_mean(self):
        return sum(self.kl) / self.n

    @property
    def perplexity_reference(self):
        return math.exp(min(700.0, sum(self.nll_reference) / self.n))

    @property
    def perplexity_device(self):
        return math.exp(min(700.0, sum(self.nll_device) / self.n))

    @property
    def kl_worst(self):
        return max(self.kl)

    @property
    def kl_p99(self):
        return quantile(self.kl, 0.99)

    def figures(self):
        """The figures as plain data."""
        return {
            "n": self.n,
            "top1": self.top1.value,
            "top1_interval": list(self.top1.interval),
            "top5": self.top5.value,
            "top5_interval": list(self.top5.interval),
            "top5_of_reference": self.top5_of_reference.value,
            "top5_of_reference_interval": list(self.top5_of_reference.interval),
            "garbage": self.garbage,
            "kl_mean": self.kl_mean,
            "kl_p99": self.kl_p99,
            "kl_worst": self.kl_worst,
            "rel_l2": self.rel_l2,
            "pcc": self.pcc,
            "perplexity_reference": self.perplexity_reference,
            "perplexity_device": self.perplexity_device,
        }

    def positions(self):
        """One record per step."""
        names = ("token", "expected", "predicted", "top1", "top5", "top5_of_reference", "garbage", "kl",
                 "nll_reference", "nll_device")  # fmt: skip
        columns = (
            self.tokens,
            self.expected,
            self.predicted,
            self.top1_hits,
            self.top5_hits,
            self.top5_of_reference_hits,
            self.garbage_hits,
            self.kl,
            self.nll_reference,
            self.nll_device,
        )
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def compare(reference, device, tokens):
    """Compare logits [n, vocabulary] of the reference and the device at steps where `tokens` [n] came next.

    A reference logit of -inf (a token that was forbidden there) forbids the token for the device too.
    """
    import torch

    n, vocabulary = reference.shape
    if device.shape != reference.shape or len(tokens) != n:
        raise ValueError(f"reference {list(reference.shape)}, device {list(device.shape)}, {len(tokens)} tokens")
    expected, predicted, top1, top5, top5_of_reference, garbage, kl = [], [], [], [], [], [], []
    nll_reference, nll_device = [], []
    sums = torch.zeros(6, dtype=torch.float64)  # n, x, y, xx, yy, xy over the allowed logits, for PCC
    distance = 0.0
    for r, d, token in zip(reference, device, tokens, strict=True):
        r, d = r.double(), d.double()
        allowed = torch.isfinite(r)
        d = d.masked_fill(~allowed, float("-inf"))
        wanted, best = int(r.argmax()), int(d.argmax())
        expected.append(wanted)
        predicted.append(best)
        top1.append(best == wanted)
        top5.append(rank(d, wanted) < 5)
        top5_of_reference.append(rank(r, best) < 5)
        garbage.append(rank(r, best) >= min(100, vocabulary))
        log_r, log_d = r.log_softmax(-1), d.log_softmax(-1)
        kl.append(max(float((log_r.exp() * (log_r - log_d))[allowed].sum()), 0.0))  # in this order NaN stays NaN
        nll_reference.append(-float(log_r[token]))
        nll_device.append(-float(log_d[token]))
        x, y = r[allowed], d[allowed]
        distance += float((x - y).square().sum())
        sums += torch.stack([torch.tensor(float(x.numel())), x.sum(), y.sum(), x @ x, y @ y, x @ y])
    count, sx, sy, sxx, syy, sxy = sums.tolist()
    spread = math.sqrt(max(0.0, sxx - sx * sx / count) * max(0.0, syy - sy * sy / count))
    return Comparison(
        list(tokens),
        expected,
        predicted,
        top1,
        top5,
        top5_of_reference,
        garbage,
        kl,
        rel_l2=math.sqrt(distance / sxx) if sxx else math.inf,
        pcc=(sxy - sx * sy / count) / spread if spread else math.nan,
        nll_reference=nll_reference,
        nll_device=nll_device,
    )


def rank(logits, token):
    """How many logits are greater than the token's: 0 is the best, and ties share the better rank."""
    return int((logits > logits[token]).sum())


def quantile(values, q):
    """The smallest value that at least the fraction `q` of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]
