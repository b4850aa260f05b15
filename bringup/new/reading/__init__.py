"""What HF's modules compute, found by running them: a small random model of the kind goes through, and what each part
takes and gives is held against what the blocks compute.

run        the small model, and what was seen in it
layers     how a decoder layer is wired: what goes into each part, and what is added to what
norms      which norm a module is
attention  projections, norms of q and k, rotation, scale, window, cap, sinks
mlp        gated or plain, with which activation
ends       token table, logits
numbers    factors by the fields of the configuration that give them
whole      all of it, as `Traits`; PARTS says who reads a part of a layer
"""

from bringup.new.reading.whole import read

__all__ = ["read"]
