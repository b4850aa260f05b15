"""What an optimised file may choose otherwise: the data of a `Choices`, its neighbours, and sums of its parts.

A candidate is that data (`Choices.as_data`): formats of groups of weights and of the cache, a fidelity of each product,
which products have their weights in the banks, cores of the residual, how chips sum.
"""

import itertools
import json

GROUPS = {"attention": ("qkv", "o"), "up": ("up",), "mlp": ("down",), "head": ("head",)}  # products by their weights
MLP = ("up", "down")  # what one pads, the other takes
DTYPES = ("bfloat16", "bfloat8_b", "bfloat4_b")  # the finest first
FIDELITIES = ("HiFi3", "HiFi2", "LoFi")  # HiFi4 brings nothing: bringup.blocks.Precision
CACHES = DTYPES[:2]
CORES = (8, 16, 24, 32, 40, 48, 56, 64)
MANY = 32  # cores, of which an MLP with a width of its own may want one number exactly
TILE = 32


def key(data):
    """The same for the same candidate."""
    return json.dumps({**data, "sharded": sorted(data["sharded"])}, sort_keys=True)


def changed(data, **parts):
    """A copy with other parts; of `weights` and `fidelity` those that are named."""
    new = json.loads(json.dumps(data))
    for name, value in parts.items():
        new[name] = new[name] | value if isinstance(value, dict) else value
    return new


def shard(data, products, banked=True):
    """With the weights of these products in the banks, or not there."""
    left = [p for p in data["sharded"] if p not in products]
    order = list(data["fidelity"])
    return changed(data, sharded=sorted({*left, *(products if banked else ())}, key=order.index))


def of_group(data, group, dtype, fidelity):
    """With that format of a group's weights and that fidelity of its products."""
    return changed(data, weights={group: dtype}, fidelity=dict.fromkeys(GROUPS[group], fidelity))


def finest(data):
    """The same programs with the finest formats and fidelities."""
    for group in GROUPS:
        data = of_group(data, group, DTYPES[0], FIDELITIES[0])
    return changed(data, cache=CACHES[0], sdpa=FIDELITIES[0])


def inner_counts(config, cores, chips):
    """Cores that have equal shares of what a chip's MLP has inside, with no padding; and the usual ones."""
    tiles = -(-getattr(config, "intermediate_size", 0) // (TILE * chips))
    return sorted({n for n in range(MANY, cores + 1) if tiles and not tiles % n} | {n for n in CORES if n <= cores})


def structures(data, cores, chips, inner=CORES):
    """Neighbours that compute the same: another place of a product's weights, other cores, another way to sum."""
    found = [shard(data, [p], p not in data["sharded"]) for p in data["fidelity"]]
    found.append(shard(data, MLP, not {*MLP} & {*data["sharded"]}))
    counts = sorted({*CORES, cores})
    found += [changed(data, cores=n) for n in counts if n <= cores and n != data["cores"]]
    found += [changed(data, inner=n) for n in inner if n <= cores and n != data["inner"]]
    return found + [changed(data, asynchronous=not data["asynchronous"])] * (chips > 1)


def neighbours(data):
    """Those that differ in one format or fidelity, or in both of a group."""
    found = []
    for group, products in GROUPS.items():
        found += [of_group(data, group, d, f) for d in DTYPES for f in FIDELITIES]
        found += [changed(data, fidelity={p: f}) for p in products for f in FIDELITIES]
        found += [changed(data, weights={group: d}) for d in DTYPES]
    found += [changed(data, cache=dtype) for dtype in CACHES]
    found += [changed(data, sdpa=fidelity) for fidelity in FIDELITIES]
    unique = {key(each): each for each in found}
    unique.pop(key(data), None)
    return list(unique.values())


def parts(data):
    """{part: {value: candidate}}: each part of the formats by itself, the rest as in `data`."""
    found = {
        group: {(d, f): of_group(data, group, d, f) for d in DTYPES for f in FIDELITIES} for group in GROUPS
    } | {
        "cache": {d: changed(data, cache=d) for d in CACHES},
        "sdpa": {f: changed(data, sdpa=f) for f in FIDELITIES},
    }  # fmt: skip
    return found


def front(seconds, loss):
    """Combinations that nothing beats, the fastest first, by sums: [({part: value}, seconds, loss)].

    seconds, loss    {part: {value: what it costs beyond the others' own}}; a value without seconds is not to be had
    """
    import numpy as np

    names = list(seconds)
    values = [[v for v in seconds[name] if v in loss[name]] for name in names]
    total = [_sums([[table[name][v] for v in some] for name, some in zip(names, values, strict=True)])
             for table in (seconds, loss)]  # fmt: skip
    combinations = list(itertools.product(*values))
    found, least = [], np.inf
    for i in np.lexsort((total[1], total[0])):
        if total[1][i] < least - 1e-12:
            least = total[1][i]
            found.append((dict(zip(names, combinations[i], strict=True)), float(total[0][i]), float(least)))
    return found


def _sums(columns):
    """Of every combination, in the order of `itertools.product`."""
    import numpy as np

    total = np.zeros(1)
    for column in columns:
        total = (total[:, None] + np.array(column)[None]).ravel()
    return total


def put_together(data, chosen, banked):
    """`data` with the parts of a combination; `banked` {group: {value: are its weights in the banks?}}."""
    for part, value in chosen.items():
        if part in GROUPS:
            data = shard(of_group(data, part, *value), GROUPS[part], banked[part][value])
        else:
            data = changed(data, **{part: value})
    one = len({*MLP} & {*data["sharded"]}) == 1
    return shard(data, MLP, MLP[0] in data["sharded"]) if one else data


def thinned(found, most):
    """At most so many of a sequence, the first and the last among them."""
    if len(found) <= most:
        return list(found)
    return [found[round(i * (len(found) - 1) / (most - 1))] for i in range(most)]
