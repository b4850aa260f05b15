"""A bring-up for a new model out of `bringup.blocks`, written from its HF configuration.

command   `bringup new`: what to write, and where
reading   what HF's modules compute, found by running them small
traits    what was found, as plain data
covered   what of a configuration no block covers
effects   fields that HF computes with and that show in no module
facts     what the templates need: lines of the model's own, plan, the weight dtype that fits
source    traits as source
literal   values as source
small     a model of the same kind at a small random size, against HF
*.j2      the templates of the model file, its notes and its test
"""
