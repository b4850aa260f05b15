"""Memory of this process: what it holds, its peak, and giving back the pages of memory-mapped checkpoints.

HF loads safetensors in their own dtype without a copy: parameters lie in a mapping of the file, and pages become
resident as they are read. Such pages can be dropped at any time, and come again from the file (or the page cache).
"""

import ctypes
import os
import sys
from pathlib import Path

DONTNEED, PAGEOUT = 4, 21  # madvise(2) of Linux
STATUS, MAPPINGS, MEMINFO = Path("/proc/self/status"), Path("/proc/self/smaps"), Path("/proc/meminfo")


def release(files):
    """Give back the resident pages of `files` that are mapped; returns the bytes asked for. Linux only: elsewhere 0.

    A page that somebody wrote to (a weight changed in place) is no longer the file's and is kept: a mapping with such
    pages is only paged out, which leaves them alone.
    """
    wanted = {os.path.realpath(f) for f in files}
    given = 0
    for start, size, path, resident, written in _mappings():
        if path in wanted and resident:
            _madvise(start, size, PAGEOUT if written else DONTNEED)
            given += resident - written
    return given


def _madvise(start, size, advice):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)  # advice: a refusal changes nothing


def resident(files):
    """Resident bytes of mapped `files`."""
    wanted = {os.path.realpath(f) for f in files}
    return sum(m[3] for m in _mappings() if m[2] in wanted)


def _mappings():
    """(start, size, path, resident bytes, written bytes) of each mapping of a file."""
    if not MAPPINGS.exists():
        return
    start = None
    for line in MAPPINGS.read_text().splitlines():
        words = line.split(None, 5)
        if not words[0].endswith(":"):  # 7f9b73a00000-7f9b73cea000 rw-p 00000000 fe:00 5310960   /path
            low, high = (int(n, 16) for n in words[0].split("-"))
            start, size, path, found = low, high - low, words[5] if len(words) == 6 else "", 0
        elif words[0] == "Rss:":
            found = int(words[1]) * 1024
        elif words[0] == "Anonymous:" and path.startswith("/"):
            yield start, size, path, found, int(words[1]) * 1024


def peak_rss_bytes():
    """The most that this process has had resident."""
    kib = _kib(STATUS, "VmHWM:")
    if kib is not None:
        return kib * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def rss_bytes():
    """What this process has resident now, or None where the system does not say."""
    kib = _kib(STATUS, "VmRSS:")
    return None if kib is None else kib * 1024


def free_bytes():
    """Memory that could be had now (Linux); elsewhere no bound is known."""
    kib = _kib(MEMINFO, "MemAvailable:")
    return float("inf") if kib is None else kib * 1024


def _kib(path, name):
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), None)
