"""The bring-up guide's checklist, executable: `bringup check MODEL_PY`.

checklist   the ten items in order, and the loop that runs them
context     what the items share: reference, open device, built model, what was measured
reference baseline of HF; modules each block; accuracy against HF; performance features; multi_device other meshes
optimized   what an optimised file owes the functional one beside it
table       the table while it runs; results the `--write` of MODEL_BRINGUP.md and MODELS.md
"""

from bringup.checks.checklist import NAMES, run

__all__ = ["NAMES", "run"]
