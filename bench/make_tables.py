"""Make ttnn_emulator/numerics/tables.npz from exhaustive unary recordings: make_tables.py FILE.npz [FILE.npz ...]

Each array `all_NAME.out` of a source is the output of one ttnn function for all 65,536 bfloat16 inputs, index = bit
pattern (ttnn 0.81.1 on the official functional simulator v1.10, Wormhole B0).
"""

import pathlib
import sys

import numpy as np

OUT = pathlib.Path(__file__).parents[1] / "ttnn_emulator" / "numerics" / "tables.npz"
#: Recordings whose rule is known, and those of a parameter; and one by the name that the emulator has for it.
BY_RULE = {
    "relu6", "pow_2", "pow_0", "rsub_1", "ceil", "trunc", "frac", "logical_not", "isnan", "eqz",
    "add_0.3", "add_3.0", "softplus_b2",
}  # fmt: skip
NAMES = {"sigmoid_FastApproximate": "sigmoid_fast"}

if __name__ == "__main__":
    tables = {}
    for source in map(np.load, sys.argv[1:]):
        found = (n for n in source.files if n.startswith("all_") and n.endswith(".out"))
        tables |= {NAMES.get(n[4:-4], n[4:-4]): source[n].ravel() for n in found if n[4:-4] not in BY_RULE}
    assert all(t.shape == (65536,) and t.dtype == np.uint16 for t in tables.values()), {
        n: t.shape for n, t in tables.items()
    }
    np.savez_compressed(OUT, **tables)
    print(f"{OUT.name}: {len(tables)} functions, {OUT.stat().st_size / 1e6:.2f} MB: {', '.join(sorted(tables))}")
