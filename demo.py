"""HF's generate() on a Tenstorrent device, or on an emulated one: the text as it comes, TTFT and tokens per second.

python demo.py models/meta-llama/Llama-3.2-1B/n150/functional/model.py --model checkpoints/tiny-llama --eval
python demo.py models/meta-llama/Llama-3.2-1B/n150/functional/model.py --model checkpoints/tiny-llama --prompt "A list"
"""

import argparse
import sys

from bringup.checks import demo
from bringup.errors import guarded


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    demo.add_arguments(parser)
    return guarded(demo.run, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
