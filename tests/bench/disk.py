"""A directory for a benchmark's data, on a disk: in memory an fsync costs nothing and every figure flatters."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deploy.local.places import ROOT

_IN_MEMORY = ("tmpfs", "ramfs")


@contextlib.contextmanager
def folder_on_disk() -> Iterator[Path]:
    """Make a directory below .local or /var/tmp, whichever is on a disk; remove it afterwards.

    Raises: RuntimeError if both are in memory.
    """
    for parent in (ROOT / ".local", Path("/var/tmp")):
        parent.mkdir(exist_ok=True)
        if filesystem(parent)[1] not in _IN_MEMORY:
            break
    else:
        raise RuntimeError(".local and /var/tmp are both in memory: nothing measured there would hold on a disk")
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    folder.chmod(0o711)  # PostgreSQL's account must step through it
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def filesystem(path: Path) -> tuple[str, str]:
    """Return the device and the type of the filesystem that holds `path`: ("/dev/vda", "ext4")."""
    path = path.resolve()
    holding = ("", "", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, place, kind, *_ = line.split()
        if path.is_relative_to(place) and len(place) >= len(holding[1]):
            holding = (device, place, kind)
    return holding[0], holding[2]


def said(*paths: Path) -> str:
    """Say where data lie. Raises: RuntimeError if one of them is in memory."""
    found = sorted({filesystem(path) for path in paths})
    if any(kind in _IN_MEMORY for _, kind in found):
        raise RuntimeError(f"a benchmark's data are in memory: {found}")
    return "data on " + " and ".join(f"{device} ({kind})" for device, kind in found)
