"""A file is there whole or not at all, and leaves nothing beside it."""

import pytest

from bringup.files import written_whole


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
