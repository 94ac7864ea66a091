"""Where the local stack keeps things. Standard library only: `bootstrap.py` runs before anything is installed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def scratch_dir(root: Path = ROOT) -> Path:
    """Return this checkout's directory outside the checkout; it may not exist.

    Used only as root when the account PostgreSQL runs as cannot reach the checkout (a clone below a 0700 home).
    `/var/tmp` and not `/tmp`, because data should survive a reboot. `make clean` removes it.
    """
    digest = hashlib.sha256(f"{os.getuid()}:{root.resolve()}".encode()).hexdigest()[:12]
    parent = Path("/var/tmp")  # noqa: S108 - claimed below only if it is ours
    return (parent if parent.is_dir() else Path(tempfile.gettempdir())) / f"parley-{digest}"


def claim_scratch_dir(root: Path = ROOT) -> Path:
    """Create `scratch_dir` and return it.

    Raises: RuntimeError if somebody else made it first; where all may write, that is a trap.
    """
    path = scratch_dir(root)
    path.mkdir(mode=0o711, exist_ok=True)
    found = path.lstat()
    if path.is_symlink() or found.st_uid != os.getuid():
        raise RuntimeError(f"{path} belongs to somebody else; remove it, or clone Parley to another directory.")
    path.chmod(0o711)  # the umask may have taken the x the account needs
    return path
