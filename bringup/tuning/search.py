"""The search of `bringup tune`: the fastest candidate whose top-1 is within a bound of the functional file's.

structures    programs, cores and sums over chips by turns, at the formats that there are
sums          each part of the formats alone, in time and in KL divergence; what nothing beats by their sums is measured
neighbours    from the fastest that holds, one change at a time while it gets faster
final         the whole model by shapes, and its accuracy with `exact` numerics
"""

from dataclasses import dataclass, field

from bringup.tuning import candidates
from bringup.tuning.candidates import GROUPS
from bringup.tuning.trials import FUNCTIONAL, seconds

FRONT = 24  # of the points that nothing beats by sums: so many are measured, evenly, and so many between the best two
WORTH = 1e-3  # of the time: less is no gain


@dataclass
class Found:
    """What a search came to: candidates with what was measured of them."""

    functional: dict  # accuracy by numerics
    chosen: dict | None = None
    final: dict = field(default_factory=dict)  # {"full": seconds, "exact": accuracy} of the chosen one
    turned_down: list = field(default_factory=list)  # [(candidate, why)] of those that failed at the end


def search(lab, start, system, bound):
    """`bound` is in points of top-1 on the same text. `Found`, with `chosen` None where nothing holds."""
    functional = {"fast": lab.accuracies([FUNCTIONAL], "the functional file")[0]}
    if "refused" in functional["fast"]:
        return Found(functional, turned_down=[(FUNCTIONAL, functional["fast"]["refused"])])
    cores, chips = system.chip.cores, system.chips
    inner = candidates.inner_counts(lab.config, cores, chips)
    near = lambda data: candidates.structures(data, cores, chips, inner)  # noqa: E731
    best = descended(lab, start, near, "programs and cores")
    judge = Judge(lab, functional["fast"], bound)
    judge.measure([start, best, candidates.finest(best)], "where the search begins")
    _by_sums(lab, best, judge)
    for _ in range(3):  # another format may want another program
        before = judge.best()
        if before is None or lab.late():
            break
        structured = descended(lab, before, near, "programs for these formats")
        judge.measure([structured], "those programs")
        _closer(lab, judge)
        if judge.best() == before:
            break
    return _final(lab, judge, functional, bound)


class Judge:
    """Which measured candidates hold the bound, and the fastest of them."""

    def __init__(self, lab, functional, bound):
        self.lab, self.least = lab, functional["top1"] - bound / 100
        self.measured = {}  # key -> (candidate, seconds, accuracy)

    def measure(self, found, what):
        """Time and accuracy of each; the accuracy of those alone that can be had."""
        timed = self.lab.times(found, what)
        some = [(data, seconds(t)) for data, t in zip(found, timed, strict=True) if "refused" not in t]
        accuracies = self.lab.accuracies([data for data, _ in some], f"{what}: accuracy") if some else []
        for (data, takes), accuracy in zip(some, accuracies, strict=True):
            if "refused" not in accuracy:
                self.measured[candidates.key(data)] = data, takes, accuracy

    def holds(self, accuracy):
        return accuracy["top1"] >= self.least

    def holding(self):
        """Candidates that hold, the fastest first, of equally fast ones the closest to HF."""
        some = [each for each in self.measured.values() if self.holds(each[2])]
        return [data for data, *_ in sorted(some, key=lambda each: (each[1], each[2]["kl_mean"]))]

    def best(self):
        return next(iter(self.holding()), None)

    def time(self, data):
        return self.measured[candidates.key(data)][1]


def descended(lab, data, neighbours, what):
    """By the fastest of its neighbours at each turn that the checkpoint runs with too, while that saves time."""
    takes = seconds(lab.times([data], what)[0])
    while not lab.late():
        near = neighbours(data)
        timed = sorted(((seconds(t), n) for n, t in enumerate(lab.times(near, what))), key=lambda each: each[0])
        faster = [(least, near[n]) for least, n in timed if least < takes * (1 - WORTH)]
        runs = (each for each in faster if "refused" not in lab.accuracies([each[1]], f"{what}: it runs")[0])
        found = next(runs, None)
        if found is None:
            break
        takes, data = found
        lab.tell(f"{what}: {1e3 * takes:.1f} ms for a prompt and its answer")
    return data


def _by_sums(lab, base, judge):
    """Measures what the sums of the parts say that nothing beats."""
    tables = _times_of_parts(lab, base)
    loss = _loss_of_parts(lab, candidates.finest(base)) if tables else None
    if not loss or lab.late():
        return
    banked, parts = tables
    found = candidates.front(parts, loss)
    whole = [candidates.put_together(base, chosen, banked) for chosen, *_ in found]
    lab.tell(f"{len(found)} combinations that nothing beats by sums")
    judge.measure(candidates.thinned(whole, FRONT), "the front")
    best = judge.best()
    keys = [candidates.key(data) for data in whole]
    if best is None or candidates.key(best) not in keys:
        return
    at = keys.index(candidates.key(best))
    begin = max((n for n in range(at) if keys[n] in judge.measured), default=-1)
    between = whole[begin + 1 : at]
    if between and not lab.late():
        judge.measure(candidates.thinned(between, FRONT // 2), "the front around the bound")


def _times_of_parts(lab, base):
    """({group: {value: banked?}}, {part: {value: seconds beyond the base's}}), each group with its better place."""
    parts, banked, found = candidates.parts(base), {}, {}
    whole = seconds(lab.times([base], "the parts")[0])
    for part, values in parts.items():
        if lab.late():
            return None
        both = [values] if part not in GROUPS else [
            {value: candidates.shard(data, GROUPS[part], place) for value, data in values.items()}
            for place in (True, False)
        ]  # fmt: skip
        asked = [data for each in both for data in each.values()]
        timed = iter(map(seconds, lab.times(asked, f"programs of {part}")))
        table = [{value: next(timed) for value in each} for each in both]
        best = {value: min(range(len(table)), key=lambda n, v=value: table[n][v]) for value in values}
        banked[part] = {value: place == 0 for value, place in best.items()}
        found[part] = {v: table[best[v]][v] - whole for v in values if table[best[v]][v] < float("inf")}
    return banked, found


def _loss_of_parts(lab, fine):
    """{part: {value: KL divergence beyond that of the finest}}."""
    least = lab.accuracies([fine], "the finest: accuracy")[0]
    if "refused" in least:
        return None
    found = {}
    for part, values in candidates.parts(fine).items():
        if lab.late():
            return None
        results = lab.accuracies(list(values.values()), f"{part}: accuracy")
        found[part] = {
            value: max(0.0, result["kl_mean"] - least["kl_mean"])
            for value, result in zip(values, results, strict=True)
            if "refused" not in result
        }
    return found


def _closer(lab, judge):
    """From the best that holds, one change of formats at a time while that is faster and holds."""
    while not lab.late():
        best = judge.best()
        near = candidates.neighbours(best)
        timed = sorted(((seconds(t), n) for n, t in enumerate(lab.times(near, "neighbours"))), key=lambda each: each[0])
        faster = [near[n] for takes, n in timed if takes < judge.time(best) * (1 - WORTH)]
        for data in faster:
            if lab.late():
                return
            judge.measure([data], "neighbours")
            if judge.best() != best:
                break
        else:
            return


def _final(lab, judge, functional, bound):
    """The best that also holds at its true size, and with `exact` numerics."""
    found = Found(functional)
    holding = judge.holding()
    if holding:
        functional["exact"] = lab.accuracies([FUNCTIONAL], "the functional file, exact", "exact")[0]
    for data in holding:
        full = lab.full(data)
        if "refused" in full:
            found.turned_down.append((data, full["refused"]))
            continue
        exact = lab.accuracies([data], "the chosen one, exact", "exact")[0]
        if "refused" not in exact and exact["top1"] >= functional["exact"]["top1"] - bound / 100:
            found.chosen, found.final = data, {"full": full, "exact": exact}
            break
        why = exact.get("refused") or f"top-1 {exact['top1']:.1%} with exact numerics"
        found.turned_down.append((data, why))
    return found
