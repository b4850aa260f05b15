"""Ops that the library binds several times, with other arguments each time."""

from __future__ import annotations

import inspect

from .op import TYPES
from .oplog import describe


def overloaded(name: str, *functions):
    """A function that calls the first of `functions` whose signature takes the arguments; none is a TypeError."""
    signatures = [inspect.signature(f) for f in functions]

    def fits(signature, given) -> bool:
        kinds = {n: TYPES.get(p.annotation) for n, p in signature.parameters.items()}
        return all(kinds[n] is None or isinstance(v, kinds[n]) for n, v in given.items() if n in kinds)

    def call(*args, **kwargs):
        for function, signature in zip(functions, signatures):
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                continue
            if fits(signature, bound.arguments):
                return function(*args, **kwargs)
        given = [describe(a) for a in args] + [f"{k}={describe(v)}" for k, v in kwargs.items()]
        raise TypeError(
            f"{name}(): incompatible function arguments.\n  got    {', '.join(given)}\n"
            + "\n".join(f"  want   {name}{s}" for s in signatures)
        )

    call.__doc__ = functions[0].__doc__
    return call
