"""A tiny checkpoint to spoil, and commands run in this process: one Python start each would take minutes."""

import shutil

import pytest

from bringup import cli
from bringup.errors import guarded
from tests.evaluation import tiny


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A checkpoint that nobody changes."""
    return tiny.save(tmp_path_factory.mktemp("hostile") / "checkpoint")


@pytest.fixture
def checkpoint(whole, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(whole, tmp_path / "checkpoint")


@pytest.fixture
def refused(capsys, monkeypatch):
    """refused(run, *words, code=2): runs a command or a function; what it says, once, on standard error."""
    monkeypatch.delenv("BRINGUP_TRACEBACK", raising=False)

    def call(run, *words, code=2):
        capsys.readouterr()
        try:
            got = cli.main([run, *map(str, words)]) if isinstance(run, str) else guarded(run, *words)
        except SystemExit as stop:  # of argparse
            got = stop.code
        out, err = capsys.readouterr()
        assert got == code, (got, out[-500:], err)
        assert "Traceback" not in out + err
        message = err[err.index("error: ") :]
        assert message.count("error: ") == 1 or "Error: " in message
        assert len(message) < 4000
        assert not set(message) & {"\x1b", "\x07", "\u202e", "\x00"}
        return message

    return call
