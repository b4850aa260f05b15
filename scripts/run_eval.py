"""Teacher-forced top-1 and top-5 of a model on a system (tt), or of the HF model in its own dtype (hf).

    python scripts/run_eval.py --mode tt --hf-model meta-llama/Llama-3.2-1B --model-dir checkpoints/tiny-llama
    python scripts/run_eval.py --mode hf --hf-model meta-llama/Llama-3.2-1B --model-dir checkpoints/tiny-llama

The last line is YT_METRICS={json}. The reference of both modes is the HF model in float32.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also from a clone that is not installed

from bringup import cli
from bringup.evaluation import run_eval


def main():
    return cli.script(run_eval, __doc__)


if __name__ == "__main__":
    sys.exit(main())
