"""What is a fact of a chip or of a system of chips, as data; outside this package nothing asks which chip it is."""

from .chip import Arch, Arithmetic, Banks, Chip
from .systems import SYSTEMS, System, machine, use
