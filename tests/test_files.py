"""A file is there whole or not at all, and leaves nothing beside it."""

import pytest

from bringup.errors import BadInput
from bringup.files import writable, written_whole


def test_what_is_interrupted_leaves_what_was_there(tmp_path):
    path = tmp_path / "new" / "note.txt"
    with written_whole(path) as partial:
        partial.write_text("first")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert [p.read_text() for p in path.parent.iterdir()] == ["first"]


def interrupted(path):
    with written_whole(path) as partial:
        partial.write_text("sec")
        raise KeyboardInterrupt


def test_a_place_that_cannot_be_written_is_refused_before_the_run(tmp_path):
    taken = tmp_path / "note.txt"
    taken.write_text("")
    assert writable(None) is None
    assert writable(tmp_path / "new" / "a.json").parent.is_dir()
    assert writable(tmp_path / "folder", folder=True).is_dir()
    for path, folder in [(taken / "a.json", False), (taken, True), (tmp_path, False)]:
        with pytest.raises(BadInput, match="cannot write"):
            writable(path, folder)
