"""Which account a server runs as, and what that account can reach."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# `nobody` is on every system; the others are for images that have stripped it.
CANDIDATES = ("nobody", "daemon", "bin")


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    uid: int
    gid: int

    def popen_arguments(self) -> dict[str, Any]:
        """Return what makes `subprocess` run a child as this account, with no group but its own."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def unprivileged_account() -> Account | None:
    """Return the account PostgreSQL shall run as; None means "as ourselves".

    PostgreSQL refuses to run as root. We add no user to the machine: we take one that is there.
    Raises: RuntimeError if the machine has none.
    """
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise RuntimeError(
        f"PostgreSQL refuses to run as root, and none of the accounts {', '.join(CANDIDATES)} exists: "
        "run this as an ordinary user."
    )


def can_reach(path: Path, account: Account | None) -> bool:
    """Tell whether the account may step through every directory above `path` (permission bits; no ACLs)."""
    if account is None:
        return True
    return all(_may_enter(parent, account) for parent in path.resolve().parents if parent.exists())


def _may_enter(directory: Path, account: Account) -> bool:
    found = directory.stat()
    if found.st_uid == account.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == account.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
