"""A bring-up for a new model out of `bringup.blocks`, written from its HF configuration.

command         `bringup new`: what to write, and where
configuration   the one that is given, and which model it is of
covered         what of a configuration no block covers, found on HF's own modules
facts           what the templates need: sizes, plan, the weight dtype that fits
small           a model of the same kind at a small random size, against HF
*.j2            the templates of the model file, its notes and its test
"""
