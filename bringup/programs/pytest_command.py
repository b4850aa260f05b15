"""Run pytest on files that say `import ttnn`, unmodified, on the chosen backend.

bringup pytest tests/test_attention.py -k decode -x
bringup pytest --system n300 --log ops.json tests/

Every word but the options below is pytest's. With pytest-xdist, workers get the same backend.
"""

from bringup.errors import BadInput
from bringup.programs import log
from bringup.programs.run import add_shared_arguments, start

REST = "arguments"  # what is not an option of ours is pytest's
HELP = "run pytest on files that say `import ttnn`, unmodified"


def add_arguments(parser):
    add_shared_arguments(parser)


def run(args):
    try:
        import pytest
    except ImportError:
        raise BadInput("pytest is not installed", hint="pip install pytest") from None
    start(args)
    with log.kept(args.log, args.system):
        return int(pytest.main(["-p", "bringup.programs.plugin", *args.arguments]))
