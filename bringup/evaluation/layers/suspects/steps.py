"""HF's own code with one step of it done differently: causes that no list has, named by the line of HF's source.

Each call between the points before and this one is, one at a time, left out, given its operands in another way, or
replaced by another of its kind; what it gives is a number of times as large, which is read off; and each weight is
another of HF's, or has its rows, columns or numbers in another order.
"""

import itertools

import torch
import torch.nn.functional as F

from bringup.evaluation.layers.activations import place, split
from bringup.evaluation.layers.suspects import inside, reading, substitutes
from bringup.evaluation.layers.suspects.mlp import ACTIVATIONS
from bringup.evaluation.layers.suspects.rerun import NEITHER, Rerun

#: Weights times positions of all runs of one point: of 64 positions of a layer of a 1B model 256 runs, some 20 s of two
#: cores. Not a time: what is found is the same on a busy machine.
WORK = 1e12
FEWEST, MANY = 100, 1000  # runs, whatever they are
NEAR = 0.03  # of a factor, to a number that is named
SAME = 1e-4  # relative: a change that changes nothing
ROUNDS = 5  # to read a factor off
NAMES = {
    "mul": "mul", "multiply": "mul", "rmul": "mul", "imul": "mul", "add": "add", "radd": "add", "iadd": "add",
    "sub": "sub", "rsub": "rsub", "div": "div", "truediv": "div", "matmul": "matmul", "bmm": "matmul",
}  # fmt: skip
UNARY = {
    "silu", "gelu", "relu", "sigmoid", "tanh", "softplus", "relu6", "square", "rsqrt", "sqrt", "exp", "cos", "sin",
    "abs", "neg", "softmax",
}  # fmt: skip
ACTS = ("silu", "gelu", "relu", "sigmoid", "tanh", "softplus")
ROOTS = {"x": lambda x: x, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "1 / x": torch.reciprocal}
HARD = {"hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "leaky relu": F.leaky_relu, "elu": F.elu}


class Budget:
    """How many runs are left, of so much work each."""

    def __init__(self, work):
        self.runs = min(MANY, max(FEWEST, int(WORK / work)))

    def spend(self):
        """Takes one; False where there is none."""
        self.runs -= 1
        return self.runs >= 0


def steps(case):
    """(words, value) of HF's layer with one call or one weight changed."""
    rerun = Rerun(case)
    with rerun.ready() as run:
        if run.run is None or not run.calls or run.right is None:
            return
        budget = Budget(run.work)
        for kind in (
            inside.modules,
            _calls,
            substitutes.weights,
            substitutes.exchanged,
            _operands,
            _elsewhere,
            _factors,
            _moved,
        ):
            for words, value, *more in kind(run, budget):
                if value is not None and _differs(value, run.right):
                    yield words, value, *more


def _differs(value, right):
    return value.shape == right.shape and float((value - right).norm()) > SAME * float(right.norm())


def _calls(run, budget):
    for i, call in run.groups:
        for words, change in changes(call):
            if not budget.spend():
                return
            yield f"HF's value with {words} in {call.words}", run.value(i, change)


def changes(call):
    """(words, change(function, args, kwargs, out)) of one call."""
    name, args, out = NAMES.get(call.function, call.function), call.args, call.out
    of_args = lambda compute: lambda f, a, k, o: compute(*a)  # noqa: E731
    if name in ("mul", "add", "sub", "rsub", "div") and len(args) > 1:
        yield from _binary(name, call)
    elif name in UNARY:
        yield from _unary(name, call)
    elif name == "clamp":
        yield "no clamp", of_args(lambda x, *_: x)
    elif name == "pow" and not isinstance(args[1], torch.Tensor):
        for n in (1, 2, 3):
            if n != args[1]:
                yield f"the power {n} in the place of {args[1]:g}", of_args(lambda x, _, n=n: x**n)
    elif name == "mean":
        yield "a sum in the place of the mean", lambda f, a, k, o: a[0].sum(*a[1:], **k)
        yield from _other_means(args[0])
    elif name in ("chunk", "split", "tensor_split") and isinstance(out, (tuple, list)) and len(out) > 1:
        yield from _pieces(call)
    elif name in ("cat", "concat", "stack"):
        yield from _joined(call)
    elif name == "getitem":
        yield from _slices(call)
    elif name in ("transpose", "permute", "swapaxes"):
        yield "the shape changed without moving values (reshaped)", lambda f, a, k, o: a[0].reshape(o.shape)
    elif name in ("reshape", "view", "flatten", "unflatten"):
        yield from _reshaped(args[0], out)
    elif name == "matmul" and args[1].shape[-1] == args[1].shape[-2]:
        yield "its second operand transposed", of_args(lambda x, y: x @ y.transpose(-1, -2))
    elif name == "linear":
        yield from _linear(call)
    elif name == "topk":
        for by in (1, -1):
            yield f"k {by:+d}", lambda f, a, k, o, by=by: _padded(torch.topk(a[0], a[1] + by, **k), o)


def _padded(got, like):
    """The shape that the code goes on with."""
    n = like[0].shape[-1]
    return type(like)((got[0][..., :n], got[1][..., :n])) if got[0].shape[-1] >= n else got


def _binary(name, call):
    x, y = call.args[:2]
    full = lambda t: isinstance(t, torch.Tensor) and t.shape == call.out.shape  # noqa: E731
    number = next((t for t in (x, y) if not isinstance(t, torch.Tensor) or t.numel() == 1), None)
    said = f"{float(number):.4g}" if number is not None else None
    part = f"the term {said}" if name in ("add", "sub", "rsub") else f"the factor {said}"
    part = f"the divisor {said}" if name == "div" else part
    if full(x) or full(y):
        kept = (x, 0, "second") if full(x) else (y, 1, "first")
        words = f"{part} left out" if number is not None else f"its {kept[2]} operand left out"
        yield words, lambda f, a, k, o, at=kept[1]: a[at].clone()
    if full(x) and full(y):
        yield "its first operand left out", lambda f, a, k, o: a[1].clone()
    if name == "mul":
        if full(x):
            yield f"{part if said else 'its second operand'} twice", lambda f, a, k, o: o * a[1]
            yield "a division in the place of the product", lambda f, a, k, o: a[0] / a[1]
        if full(x) and full(y):
            yield "a sum in the place of the product", lambda f, a, k, o: a[0] + a[1]
    elif name == "add":
        yield f"{part if said else 'its second operand'} subtracted", lambda f, a, k, o: a[0] - a[1]
        if number is None:
            yield "its second operand twice", lambda f, a, k, o: o + a[1]
            yield "its first operand twice", lambda f, a, k, o: o + a[0]
            yield "a product in the place of the sum", lambda f, a, k, o: a[0] * a[1]
        else:
            yield f"{part} subtracted", lambda f, a, k, o: o - 2 * float(number)
    elif name in ("sub", "rsub"):
        yield "the other sign", lambda f, a, k, o: -o
        yield "a sum in the place of the difference", lambda f, a, k, o: a[0] + a[1]
    else:
        yield "a product in the place of the division", lambda f, a, k, o: a[0] * a[1]
        yield f"{part if said else 'its divisor'} twice", lambda f, a, k, o: o / a[1]


def _unary(name, call):
    first = lambda compute: lambda f, a, k, o: compute(a[0])  # noqa: E731
    if name == "softmax":
        yield "no softmax", first(lambda x: x)
        yield "its sum left out (exp alone)", first(lambda x: (x - x.amax(-1, keepdim=True)).exp())
        yield "a sigmoid in the place of the softmax", first(torch.sigmoid)
        yield "a softmax over another dim", first(lambda x: x.softmax(-2))
        return
    yield f"{name} left out", first(lambda x: x)
    others = (
        ROOTS if name in ("sqrt", "rsqrt") else {"sin": torch.sin, "cos": torch.cos} if name in ("cos", "sin") else {}
    )
    others = ACTIVATIONS | HARD if name not in ("exp", "abs", "neg", *ROOTS, "cos", "sin") else others
    for other, compute in others.items():
        if other not in (name, "no activation", "x"):
            yield f"{other} in the place of {name}", first(compute)


def _other_means(x):
    """Of shares of the width, and of a dim more."""
    for n in (2, 4, 8):
        if x.shape[-1] % n == 0:
            shares = lambda x, n=n: x.unflatten(-1, (n, -1)).mean(-1).repeat_interleave(x.shape[-1] // n, -1)  # noqa: E731
            yield f"the mean of each of {n} shares", lambda f, a, k, o, shares=shares: shares(a[0])
    for dim in range(1, x.dim() - 1):
        whole = lambda f, a, k, o, dim=dim: o.mean(dim, keepdim=True).expand_as(o)  # noqa: E731
        yield f"the mean over dim {dim} too ({x.shape[dim]})", whole


def _pieces(call):
    out = call.out
    if len({p.shape for p in out}) == 1:
        yield "its pieces in the other order", lambda f, a, k, o: type(o)(reversed(o))
        dim = call.kwargs.get("dim", call.args[2] if len(call.args) > 2 else 0)
        n = len(out)
        for i, j in itertools.combinations(range(n), 2) if n > 2 else ():
            exchanged = lambda f, a, k, o, i=i, j=j: type(o)(o[{i: j, j: i}.get(at, at)] for at in range(len(o)))  # noqa: E731
            yield f"its pieces {i} and {j} (of {n}) in each other's place", exchanged
        take = lambda x, i: x.movedim(dim, -1)[..., i::n].movedim(-1, dim)  # noqa: E731
        yield f"one of every {n} taken in turn, not blocks,", lambda f, a, k, o: tuple(take(a[0], i) for i in range(n))


def _joined(call):
    n = len(call.args[0])
    if n < 2:
        return
    rest = call.args[1:]
    with_pieces = lambda compute: lambda f, a, k, o: f(compute(list(a[0])), *rest, **k)  # noqa: E731
    yield "its pieces in the other order", with_pieces(lambda p: p[::-1])
    for i in range(min(n, 4)):
        yield (
            f"piece {i} with the other sign",
            with_pieces(lambda p, i=i: [-t if j == i else t for j, t in enumerate(p)]),
        )
        yield f"zeros for piece {i}", with_pieces(lambda p, i=i: [t * (j != i) for j, t in enumerate(p)])


def _slices(call):
    """The same number of columns from another place."""
    x, index = call.args[:2]
    index = index if isinstance(index, tuple) else (index,)
    if not index or not isinstance(index[-1], slice) or not isinstance(x, torch.Tensor):
        return
    n, m = x.shape[-1], call.out.shape[-1]
    if m >= n or call.out.dim() != x.dim():
        return
    others = {f"the first {m} of {n}": slice(0, m), f"the last {m} of {n}": slice(n - m, n)}
    if n % m == 0:
        others |= {f"every {n // m}th from {i} on": slice(i, None, n // m) for i in range(min(n // m, 4))}
    for words, cut in others.items():
        yield f"{words} columns", lambda f, a, k, o, cut=cut: a[0][(*index[:-1], cut)]


def _reshaped(x, out):
    """Dims that are joined or parted, in the other order."""
    if not isinstance(x, torch.Tensor):
        return
    if x.dim() > out.dim():
        for d in range(x.dim() - 1):
            if min(x.shape[d : d + 2]) > 1:
                swapped = lambda f, a, k, o, d=d: a[0].transpose(d, d + 1).reshape(o.shape)  # noqa: E731
                yield f"{x.shape[d]} and {x.shape[d + 1]} joined in the other order", swapped
    elif out.dim() > x.dim():
        for d in range(out.dim() - 1):
            if min(out.shape[d : d + 2]) > 1 and d and out.shape[d] * out.shape[d + 1] in x.shape:
                shape = [*out.shape[:d], out.shape[d + 1], out.shape[d], *out.shape[d + 2 :]]
                parted = lambda f, a, k, o, d=d, shape=shape: a[0].reshape(shape).transpose(d, d + 1)  # noqa: E731
                yield f"{out.shape[d]} x {out.shape[d + 1]} parted in the other order (the second outermost)", parted


def _linear(call):
    bias = call.args[2] if len(call.args) > 2 else call.kwargs.get("bias")
    if bias is not None:
        yield f"{call.module}.bias left out", lambda f, a, k, o: o - bias
        yield f"{call.module}.bias added twice", lambda f, a, k, o: o + bias
        yield f"{call.module}.bias subtracted", lambda f, a, k, o: o - 2 * bias
    if call.args[0].shape == call.out.shape:
        yield "the product left out: its input", lambda f, a, k, o: a[0].clone()
        yield "its input added to it", lambda f, a, k, o: o + a[0]


def _operands(run, budget):
    """Another point's value where a call takes one of that shape; HF's activation once more after a call."""
    case = run.case
    points = {}
    for name in case.own.points:
        layer, point = split(name)
        if layer in (case.layer, None) and point not in ("norm", "lm_head") and place(name) < place(case.name):
            points[point] = case.any(name)
    points["the layer's input"] = case.before()
    points |= inside.normed(case)
    own = {call.function: call for call in run.calls.values() if NAMES.get(call.function, call.function) in ACTS}
    for i, call in run.groups:
        if NAMES.get(call.function, call.function) in ("linear", "matmul", "add", "mul", "pow"):
            for at, x in enumerate(call.args[:2]):
                for name, value in points.items():
                    if not isinstance(x, torch.Tensor) or x.shape != (1, *value.shape) or _same(x[0], value):
                        continue
                    if not budget.spend():
                        return
                    other = lambda f, a, k, o, at=at, v=value: f(*a[:at], v[None], *a[at + 1 :], **k)  # noqa: E731
                    yield f"HF's value with {name} for what is taken in {call.words}", run.value(i, other)
        for function, activation in own.items():
            if isinstance(call.out, torch.Tensor) and call is not activation and call.function not in NEITHER:
                if not budget.spend():
                    return
                f = activation.kwargs
                more = lambda _, a, k, o, of=function, f=f: _activated(of, o, f)  # noqa: E731
                yield f"HF's value with {function} once more after {call.words}", run.value(i, more)


def _activated(function, x, kwargs):
    return getattr(F, function, getattr(torch, function, None))(
        x, **{k: v for k, v in kwargs.items() if k != "inplace"}
    )


def _same(x, y):
    return float((x - y).norm()) <= SAME * float(y.norm())


def _elsewhere(run, budget):
    """A factor or a term of every row or column, left out where HF has it and put where another call gives its result:
    before what is not linear, or after a sum."""
    moved = []
    for i, call in run.groups:
        name = NAMES.get(call.function, call.function)
        if name not in ("mul", "add") or len(call.args) < 2:
            continue
        for at, x in enumerate(call.args[:2]):
            y = call.args[1 - at]
            if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) and y.shape == call.out.shape != x.shape:
                moved.append((name, i, call, at))
    for name, i, call, at in moved:
        for j, other in run.groups:
            if set(i) & set(j) or len(i) != len(j) or not isinstance(other.out, torch.Tensor):
                continue
            if other.function in NEITHER or not budget.spend():
                continue
            yield (
                f"HF's value with the {'factor' if name == 'mul' else 'term'} of {call.words} not there, but at "
                f"{other.words}",
                _put(run, name, i, at, j),
            )


def _put(run, name, i, at, j):
    taken, given = dict(zip(i, j, strict=True)), dict(zip(j, i, strict=True))

    def change(f, a, k, o):
        n = run.mode.n - 1
        if n in taken:
            return a[1 - at].clone()
        x = run.calls[given[n]].args[at]
        return o * x if name == "mul" else o + x

    return run.value({*i, *j}, change)


def _factors(run, budget):
    """What a call gives, a number of times as large: the number by Gauss and Newton."""
    case, before = run.case, None
    for i, call in reversed(run.groups):
        if not isinstance(call.out, torch.Tensor) or call.out is before:
            continue
        before = call.out
        times = lambda c: lambda f, a, k, o: o * c  # noqa: E731
        c, value = 1.0, run.right
        for _ in range(ROUNDS):
            if not budget.spend():
                return
            step = 0.01 * max(abs(c), 0.1)
            near = run.value(i, times(c + step))
            if value is None or near is None or near.shape != run.right.shape:
                break
            slope = (near - value)[case.rows] / step
            size = float(slope.square().sum())
            if size <= 0:
                break
            change = float((slope * (case.got - value[case.rows])).sum()) / size
            limit = 3 * max(abs(c), 0.3)
            c += min(max(change, -limit), limit)
            value = run.value(i, times(c))
            if abs(change) < 1e-3 * max(abs(c), 1e-3):
                break
        if value is not None and abs(c - 1) > NEAR:
            yield f"HF's value with {reading.named(case, c, NEAR)} times the result of {call.words}", value


def _moved(run, budget):
    """What a call gives, of the position before or after, or in a coarser format."""
    case, n, before = run.case, len(run.case.device.ids), None
    for i, call in run.groups:
        if not isinstance(call.out, torch.Tensor) or call.out is before:
            continue
        before = call.out
        dims = [d for d, size in enumerate(call.out.shape) if size == n]
        for by in (1, -1) if len(dims) == 1 else ():
            if not budget.spend():
                return
            rolled = lambda f, a, k, o, by=by, d=dims[0]: o.roll(by, d)  # noqa: E731
            yield f"the values of position p {-by:+d} from {call.words}", run.value(i, rolled)
    yield from substitutes.formats(run, case, budget)
