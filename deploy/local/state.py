"""The state directory (`.local/`): lock, secrets, logs and the description of the running stack."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class StackError(RuntimeError):
    """Something the user can put right; the sentence says how."""


@dataclass(frozen=True, slots=True)
class StateDir:
    path: Path

    @classmethod
    def open(cls, path: Path) -> StateDir:
        """Create the directory if need be.

        Mode 0711: PostgreSQL's account must step through it; what is secret inside is closed by itself.
        """
        path = path.absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
            if path.stat().st_uid == os.geteuid():
                path.chmod(0o711)
            (path / "logs").mkdir(mode=0o700, exist_ok=True)
            (path / "media").mkdir(mode=0o700, exist_ok=True)
            (path / ".writable").touch()
            (path / ".writable").unlink()
        except PermissionError as error:
            raise StackError(
                f"{path} cannot be written (was it made by another user?): remove it, or pass --state-dir."
            ) from error
        return cls(path)

    @property
    def stack_file(self) -> Path:
        return self.path / "stack.json"

    @property
    def story_file(self) -> Path:
        return self.path / "story.json"

    @property
    def storage_dir(self) -> Path:
        return self.path / "media"

    def log_file(self, process: str) -> Path:
        return self.path / "logs" / f"{process}.log"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for one stack.

        Raises: StackError, naming the process, if another stack holds it. The kernel frees the lock when we die.
        """
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise StackError(
                    f"A stack already runs on {self.path} (process {holder}). "
                    "Stop it with Ctrl-C in its terminal, or pass another --state-dir."
                ) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def is_locked(self) -> bool:
        """Tell whether a stack runs here now."""
        try:
            with (self.path / "lock").open("a+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def secret(self, name: str, make: Callable[[], str] = lambda: secrets.token_hex(24)) -> str:
        """Return the secret of that name, made up on first use and kept readable to us only."""
        file = self.path / "secrets.json"
        known: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
        if name not in known:
            known[name] = make()
            write_private(file, json.dumps(known, indent=2) + "\n")
        return known[name]

    def write_stack(self, stack: dict[str, Any]) -> None:
        write_private(self.stack_file, json.dumps(stack, indent=2, ensure_ascii=False) + "\n")

    def read_stack(self) -> dict[str, Any] | None:
        """Return the running stack's description; None if none is up (a file left by a killed one does not count)."""
        if not self.is_locked():
            return None
        try:
            stack: dict[str, Any] = json.loads(self.stack_file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return stack


def write_private(file: Path, text: str) -> None:
    """Write a file whole or not at all, readable to us only."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)
