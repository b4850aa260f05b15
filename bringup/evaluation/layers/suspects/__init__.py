"""What a wrong value would be right for: each mechanism of a fault, tried in the reference and held against the device.

At the first point that diverges, HF's own modules compute in float32, on the device's own input, what the device would
have if this or that were done differently: another weight, another rotation, another scale, a term too many. What a
mechanism leaves open (which position, which factor, which head) is read off the device's value. A cause is named where
the value with it fits, to within what the formats explain; else only what is known is said: where the difference is.

case        one point: HF's modules there, the device's inputs to them, and whether a value fits
mechanisms  MECHANISMS: which apply at which point
parts       heads, positions, columns and chips that alone differ
reading     what is read off a value: a factor, an order of rows or of positions
weights     other weights in the place of the one expected
rerun       HF's code of the layer, run again with one call or one weight changed
steps       which calls, in which ways; substitutes: which weights
per_layer  what a layer takes beside the stream
norms, residuals, rotation, attention, mlp, ends    what each kind of point may have instead
"""

from bringup.evaluation.layers.suspects.case import REMAINS, Case, distance
from bringup.evaluation.layers.suspects.mechanisms import explain

__all__ = ["REMAINS", "Case", "distance", "explain"]
