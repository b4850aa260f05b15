"""HF's generate() on a Tenstorrent device, or on an emulated one: the text as it comes, TTFT and tokens per second.

python demo.py models/meta-llama/Llama-3.2-1B/n150/functional/model.py --model checkpoints/tiny-llama --eval
python demo.py models/meta-llama/Llama-3.2-1B/n150/functional/model.py --model checkpoints/tiny-llama --prompt "A list"
"""

import sys

from bringup import cli
from bringup.checks import demo


def main():
    return cli.script(demo, __doc__)


if __name__ == "__main__":
    sys.exit(main())
