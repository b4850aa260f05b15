"""What an item of the checklist says: pass, fail or skipped, one line, evidence, and what to try."""

from dataclasses import dataclass, field

PASS, FAIL, SKIPPED = "pass", "fail", "skipped"
NOT_BUILT = "the model was not built"  # and then why


@dataclass
class Outcome:
    """`summary` is one line; `evidence` are lines with the figures; `hint` is what to try where it failed."""

    status: str
    summary: str
    evidence: list = field(default_factory=list)
    hint: str | None = None


def verdict(problems, summary, evidence=(), hint=None):
    """A pass with `summary`; a fail with the first of the `problems` where there are any."""
    problems = list(problems)
    if not problems:
        return Outcome(PASS, summary, list(evidence))
    return Outcome(FAIL, problems[0], [*problems[1:], *evidence], hint)


def skipped(why):
    return Outcome(SKIPPED, why)
