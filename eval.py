"""Teacher-forced accuracy of one model.py against its Hugging Face model.

python eval.py models/meta-llama/Llama-3.2-1B/n150/functional/model.py --model checkpoints/tiny-llama
python eval.py models/meta-llama/Llama-3.2-1B/n150/functional/model.py --random-weights --max_new_tokens 8
python eval.py models/meta-llama/Llama-3.2-1B/n150/functional/model.py --model DIR --text_file prompts/prose.txt
"""

import sys

from bringup import cli
from bringup.evaluation import command


def main():
    return cli.script(command, __doc__)


if __name__ == "__main__":
    sys.exit(main())
