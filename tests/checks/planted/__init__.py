"""Faults planted by someone who had not read the finder, each with the truth about it.

A fault is planted as in `tests.checks.faults`. What is written beside it is what is wrong and where, and never what the
finder says of it.
"""

from tests.checks.planted import attention, chips, layer, others, rope, state, weights
from tests.checks.planted.core import PLANTED
