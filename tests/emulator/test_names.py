"""A program that runs here finds every name it uses in ttnn 0.81.1 too."""

import types

import ttnn_emulator as ttnn
from ttnn_emulator.names import library_names

#: What the emulator offers beside the library's names, for the tools around it. A model file has no use for them.
OURS = {"DeviceRejects", "NotEmulated", "record", "spec_only"}


def test_every_name_is_the_librarys():
    for namespace, theirs in library_names().items():
        module = ttnn
        for part in namespace.split(".")[1:]:
            module = getattr(module, part)
        mine = {n for n, v in vars(module).items() if not n.startswith("_") and not isinstance(v, types.ModuleType)}
        assert mine - OURS <= set(theirs), f"{namespace}: ttnn 0.81.1 lacks {sorted(mine - OURS - set(theirs))}"


def test_ours_are_not_the_librarys():
    assert not OURS & set(library_names()["ttnn"])
