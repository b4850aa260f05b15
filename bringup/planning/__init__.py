"""The two questions before any board: does it fit, and how fast will it be.

formats      which dtype each group of weights has, as the command line says it
shapes       the tensors of one chip, from an HF configuration alone
spec_run     a model file run by shapes alone: its memory and its op log
wiring       the model file that stands for a model, or one written for the plan
memory       bytes per chip, the longest context, whether tensor parallelism divides
roofline     predicted time of an op log
calibration  the few constants of the prediction, fitted to published rows
ops          programs as tt-perf-report reads them; beside: functional and optimised files beside published rows
plan         `bringup plan`; show prints it, docs writes docs/planning.md
"""
