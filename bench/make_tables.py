"""Make ttnn_emulator/numerics/tables.npz from the exhaustive unary recordings: make_tables.py path/to/unary.npz

Each array of the source is the output of one ttnn function for all 65,536 bfloat16 inputs, index = bit pattern (ttnn
0.81.1 on the official functional simulator v1.10, Wormhole B0).
"""

import pathlib
import sys

import numpy as np

OUT = pathlib.Path(__file__).parents[1] / "ttnn_emulator" / "numerics" / "tables.npz"

if __name__ == "__main__":
    source = np.load(sys.argv[1])
    tables = {n[4:-4]: source[n].ravel() for n in source.files if n.startswith("all_") and n.endswith(".out")}
    assert all(t.shape == (65536,) and t.dtype == np.uint16 for t in tables.values()), {
        n: t.shape for n, t in tables.items()
    }
    np.savez_compressed(OUT, **tables)
    print(f"{OUT.name}: {len(tables)} functions, {OUT.stat().st_size / 1e6:.2f} MB: {', '.join(sorted(tables))}")
