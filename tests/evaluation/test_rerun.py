"""HF's code run again with a call changed: whose calls those are, and how many runs it may take."""

import torch

from bringup.backends.model_files import import_file
from bringup.evaluation.layers.suspects.rerun import _Mode
from bringup.evaluation.layers.suspects.steps import FEWEST, MANY, WORK, Budget


def test_hfs_code_may_lie_in_a_folder_of_our_name(tmp_path):
    """A clone named ttnn-bringup has transformers in its .venv."""
    file = tmp_path / "ttnn-bringup" / ".venv" / "modeling.py"
    file.parent.mkdir(parents=True)
    file.write_text("def forward(x):\n    return x.exp()\n")
    seen, x = [], torch.ones(2)
    with _Mode(seen=lambda function, *rest: seen.append(function.__name__)):
        import_file(file).forward(x)
    assert seen == ["exp"]


def test_the_runs_are_a_matter_of_sizes_and_not_of_time():
    left = lambda work: sum(1 for _ in iter(Budget(work).spend, False))  # noqa: E731
    assert (left(1e3), left(WORK / 256), left(1e12)) == (MANY, 256, FEWEST)
