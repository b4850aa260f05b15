"""The layer finder: where a device first leaves its HF model, and why.

activations          what every named point computes; HF's values, recorded and replaced
device_activations   the device's values at the same points
declared             the formats that a model file declares
verdict              one point: its own error against what the formats explain
divergence           the comparison, and the first point that is off by its own doing
compensated          differences that are made up for in the same block: another basis, no fault
left_out             what did not run on the device
facts                what the op log says against the configuration
suspects             what a wrong value would be right for
command              `bringup layers`
"""

from bringup.evaluation.layers.activations import Activations, record_reference
from bringup.evaluation.layers.declared import precision_of
from bringup.evaluation.layers.device_activations import record_device
from bringup.evaluation.layers.divergence import Profile, compare, judge, profile
from bringup.evaluation.layers.verdict import figures

__all__ = [
    "Activations",
    "Profile",
    "compare",
    "figures",
    "judge",
    "precision_of",
    "profile",
    "record_device",
    "record_reference",
]
