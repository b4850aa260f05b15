"""Pages of mapped checkpoints: given back, read again, and kept where somebody wrote to them."""

import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bringup.checkpoints import mapped

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="page advice and /proc are Linux's")


@pytest.fixture
def weight(tmp_path):
    """8 MiB in a file, mapped, and the file."""
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.arange(1 << 21, dtype=torch.float32)}, path)
    with safe_open(path, "pt") as stored:
        yield stored.get_tensor("w"), path


def test_pages_that_were_read_are_given_back_and_come_again(weight):
    w, path = weight
    total = w.sum()
    assert mapped.resident([path]) >= 8 << 20
    assert mapped.release([path]) >= 8 << 20
    assert mapped.resident([path]) == 0
    assert w.sum() == total


def test_what_was_changed_in_place_stays(weight):
    w, path = weight
    w[5] = -1
    w[-1] = -2
    mapped.release([path])
    assert (w[5], w[6], w[-1]) == (-1, 6, -2)


def test_other_files_are_left_alone(weight, tmp_path):
    w, path = weight
    w.sum()
    assert mapped.release([tmp_path / "another"]) == 0
    assert mapped.resident([path]) >= 8 << 20


def test_links_as_the_hub_cache_has_them(weight, tmp_path):
    w, path = weight
    (tmp_path / "link.safetensors").symlink_to(path)
    w.sum()
    assert mapped.release([tmp_path / "link.safetensors"]) >= 8 << 20


def test_the_peak_outlasts_what_caused_it():
    size = mapped.peak_rss_bytes() - mapped.rss_bytes() + (64 << 20)
    held = torch.ones(size, dtype=torch.uint8)
    peak = mapped.peak_rss_bytes()
    assert peak >= mapped.rss_bytes() >= size
    del held
    assert mapped.peak_rss_bytes() >= peak - (1 << 20)  # the kernel counts per core and adds up now and then


def test_where_there_is_no_proc(monkeypatch, tmp_path):
    for name in ("STATUS", "MAPPINGS", "MEMINFO"):
        monkeypatch.setattr(mapped, name, tmp_path / "none")
    assert mapped.release([tmp_path]) == 0
    assert mapped.rss_bytes() is None
    assert mapped.free_bytes() == float("inf")
    assert mapped.peak_rss_bytes() > 1 << 20
