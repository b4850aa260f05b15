"""HF's code of one layer, run again on the device's values as often as it takes: what it calls, and with which weights.

A layer's own code up to one point is a list of calls of torch, in the order in which HF's source makes them. `Rerun`
makes them again with one of them changed, or with another weight, and gives the value at the point.
"""

import linecache
import os
import sys
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode

import bringup
from bringup.evaluation.layers.activations import ORDER, Activations, recording

TORCH = os.path.dirname(torch.__file__)
OURS = os.path.dirname(bringup.__file__) + os.sep  # not any folder of that name: HF's code may lie in ours
TOGETHER = ("self_attn.q_rope", "self_attn.k_rope", "self_attn.k_cache", "self_attn.v_cache")
FEW = 4  # calls of one place in the code that are changed one by one too
LONGEST = 90  # characters of a line of HF's source
NEITHER = ("contiguous", "dropout", "to", "float", "type_as")  # calls that change no value


class Reached(Exception):
    """The point has its value."""


class Call(NamedTuple):
    """One call that gave floats: what, its arguments and result; the module that makes it, and the line."""

    function: str
    args: tuple
    kwargs: dict
    out: object
    module: str
    line: str
    place: tuple  # in HF's code

    @property
    def words(self):
        return f"{self.module}, {self.function} of `{self.line}`"


class _Mode(TorchFunctionMode):
    """Counts the calls that HF's code makes; those `at` these numbers are what `change(function, args, kwargs, out)`
    says."""

    def __init__(self, at=(), change=None, seen=None):
        super().__init__()
        self.at, self.change, self.seen, self.n = at, change, seen, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        if not _floats(out) or (frame := _caller(inner := sys._getframe(1))) is None:
            return out
        self.n += 1
        if self.seen is not None:
            self.seen(function, args, kwargs, out, frame, inner)
        return self.change(function, args, kwargs, out) if self.n - 1 in self.at else out


def _floats(out):
    first = out[0] if isinstance(out, (tuple, list)) and out else out
    return isinstance(first, torch.Tensor) and first.is_floating_point()


def _caller(frame):
    """The frame of HF's code that makes a call; None where it is ours, and no step of the model."""
    while frame is not None and frame.f_code.co_filename.startswith(TORCH):
        frame = frame.f_back
    return None if frame is None or frame.f_code.co_filename.startswith(OURS) else frame


class Rerun:
    """The code of a case's point: `calls` that lie between the points before and it, and `value(...)` of it."""

    def __init__(self, case):
        self.case, self.hf = case, case.hf
        self.names = {id(m): n.removeprefix(case.prefix) or n for n, m in case.modules.items()}
        self.ids = torch.tensor([list(case.device.ids)])
        self.out = Activations(list(case.device.ids), case.device.decode_from)
        self.calls, self.first = {}, 0
        self.run = None

    @contextmanager
    def ready(self):
        """Inside, HF takes the device's values at every point and the layer can be run."""
        config = self.case.config
        kind = getattr(config, "_attn_implementation", None)
        config._attn_implementation = "eager"  # attention in separate calls
        try:
            with self._plain(), recording(self.hf, self.out, self.case.device, taken=self._taken):
                self.run = self._of_layer() if self.case.layer is not None else self._of_end()
                if self.run is not None:
                    self._list()
                yield self
        finally:
            config._attn_implementation = kind

    @contextmanager
    def _plain(self):
        """The layer computes by HF's code on whole weights in float32, not piece by piece (`computing_in`)."""
        inside = [] if self.case.layer is None else list(self.hf.model.layers[self.case.layer].modules())
        streamed = {m: m.__dict__.pop("forward") for m in inside if "forward" in m.__dict__}
        held = {p: p.data for m in inside for p in m.parameters(recurse=False)}
        try:
            for p, data in held.items():
                p.data = data.float()
            yield
        finally:
            for p, data in held.items():
                p.data = data
            for m, forward in streamed.items():
                m.forward = forward

    def _of_layer(self):
        given = {}
        layer = self.hf.model.layers[self.case.layer]
        handle = layer.register_forward_pre_hook(
            lambda _, args, kwargs: given.update(args=args, kwargs=kwargs), with_kwargs=True, prepend=True
        )
        self.wanted = None
        try:
            self.hf(self.ids, use_cache=False)
        finally:
            handle.remove()
        return (lambda: layer(*given["args"], **given["kwargs"])) if given else None

    def _of_end(self):
        """The token table, or the last norm, on what they took."""
        module, given = self.case.module, {}
        if module is None or self.case.point not in ("embed_tokens", "norm"):
            return None
        handle = module.register_forward_pre_hook(lambda _, args: given.update(args=args), prepend=True)
        self.wanted = None
        try:
            self.hf(self.ids, use_cache=False)
        finally:
            handle.remove()
        return (lambda: module(*given["args"])) if given else None

    @property
    def work(self):
        """Weights times positions of one run."""
        module = self.case.module if self.case.layer is None else self.hf.model.layers[self.case.layer]
        return sum(p.numel() for p in module.parameters()) * self.ids.shape[1]

    def _taken(self, name):
        if self.wanted == name:
            raise Reached
        if self.mode is not None and self.counts(name):
            self.first = self.mode.n

    mode = wanted = None

    def counts(self, name):
        """Is that a point before, from whose value on HF's code goes to this one?"""
        point, own = name.removeprefix(self.case.prefix), self.case.point
        if point not in ORDER or own not in ORDER:
            return False
        if own in TOGETHER and point in TOGETHER:
            return False
        return ORDER.index(point) < ORDER.index(own)

    def _list(self):
        calls = self.calls

        def seen(function, args, kwargs, out, frame, inner):
            name = getattr(function, "__name__", str(function)).strip("_")
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            line = line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
            place = frame.f_code.co_filename, frame.f_code.co_name, frame.f_lasti, self._module(inner)
            calls[self.mode.n - 1] = Call(name, args, kwargs, out, place[-1], line, place)

        self.right = self.value(mode=_Mode(seen=seen))
        self.calls = {i: call for i, call in calls.items() if i >= self.first}
        self.groups = self._groups()

    def _groups(self):
        """[(numbers, the first call)]: each call alone, and those of one place in the code together, as of a loop."""
        by_place = {}
        for i, call in self.calls.items():
            by_place.setdefault((call.function, call.place), []).append(i)
        groups = [tuple(g) for g in by_place.values()]
        groups += [(i,) for g in groups if 1 < len(g) <= FEW for i in g]
        return [(g, self.calls[g[0]]) for g in sorted(groups, key=lambda g: (g[0], -len(g)))]

    def _module(self, frame):
        while frame is not None:
            own = frame.f_locals.get("self")
            if isinstance(own, torch.nn.Module) and (name := self.names.get(id(own))) is not None:
                return name
            frame = frame.f_back
        return self.case.point

    def value(self, at=(), change=None, mode=None):
        """[positions, width] at the point; None where the changed code does not run."""
        self.wanted, self.mode = self.case.name, mode or _Mode(at, change)
        self.out.points.pop(self.case.name, None)
        try:
            with self.mode, torch.no_grad():
                self.run()
        except Reached:
            pass
        except (ArithmeticError, AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return None
        finally:
            self.wanted = self.mode = None
        return self.out.points.get(self.case.name)
