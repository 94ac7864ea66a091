"""Make `.venv` from the lock file, or take everything away again. Run by the system's python3, before anything exists.

    python3 deploy/local/bootstrap.py local|dev|clean

Standard library only, and readable by an old Python up to the sentence that asks for a newer one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
STAMP = VENV / ".parley.json"
INSTALLING = Path(__file__)  # locked while we install: a file of its own would be one more to ignore and to remove
GROUPS = ("local", "dev")  # dev holds all of local
OLDEST = (3, 11)
CACHES = (".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache")


def main(argv: list[str]) -> int:
    if sys.version_info < OLDEST:
        have = ".".join(map(str, sys.version_info[:2]))
        return fail(f"Python {have} is too old: Parley needs 3.11 or newer (make run PYTHON=/path/to/a/newer/python3).")
    if argv == ["clean"]:
        return clean()
    if len(argv) != 1 or argv[0] not in GROUPS:
        return fail("usage: bootstrap.py local|dev|clean")
    return install(argv[0])


def install(group: str) -> int:
    """Bring `.venv` up to what the lock of that group says; nothing to do takes milliseconds."""
    if is_current(group):
        return 0
    try:
        import ensurepip  # noqa: F401 - Debian leaves it out of python3
    except ImportError:
        return fail(
            "This python3 cannot make virtual environments: install the package python3-venv "
            "(Debian, Ubuntu: apt install python3-venv), then run make again."
        )
    with INSTALLING.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("Another make is installing; waiting for it.", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if is_current(group):  # the other one did it
            return 0
        started = time.monotonic()
        if not make_venv() or not install_packages(group):
            return 1
        stamp(group)
        print(f"Installed into .venv in {time.monotonic() - started:.0f} s.", flush=True)
    return 0


def is_current(group: str) -> bool:
    try:
        found = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    if not (VENV / "bin" / "python").exists():  # the Python it was made from is gone
        return False
    enough = GROUPS[GROUPS.index(group) :]
    return found.get("group") in enough and found.get("lock") == digest(found["group"])


def stamp(group: str) -> None:
    STAMP.write_text(json.dumps({"group": group, "lock": digest(group), "python": sys.version}))


def requirements(group: str) -> Path:
    return ROOT / "requirements" / f"{group}.txt"


def digest(group: str) -> str:
    return hashlib.sha256(requirements(group).read_bytes()).hexdigest()


def make_venv() -> bool:
    if runs_pip():
        return True
    # --clear: whatever is there is half made, or of a Python that is gone.
    done = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        fail(f"Could not make {VENV}:\n{done.stdout}")
        return False
    return True


def runs_pip() -> bool:
    try:
        done = subprocess.run(
            [str(VENV / "bin" / "python"), "-m", "pip", "--version"], capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def install_packages(group: str) -> bool:
    """Run pip, counting packages; what it says is shown only if it fails."""
    total = sum(1 for line in requirements(group).read_text().splitlines() if re.match(r"[A-Za-z0-9]", line))
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--require-hashes", "--no-input"]
    command += ["--progress-bar", "off", "-r", str(requirements(group))]
    environment = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_COLOR="1", PYTHONUNBUFFERED="1")
    said: list[str] = []
    progress = Progress(total)
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    try:
        assert process.stdout is not None  # noqa: S101 - we asked for a pipe
        for line in process.stdout:
            said.append(line)
            progress.heard(line)
        failed = process.wait() != 0
    except KeyboardInterrupt:
        process.wait()
        progress.close()
        fail("Stopped; run make again to go on.")
        return False
    progress.close()
    if failed:
        fail("".join(said) + f"pip could not install requirements/{group}.txt; what it said is above.")
    return not failed


class Progress:
    """One bar on a terminal, a few lines elsewhere.

    pip tells each package it takes and nothing while it unpacks them: there we count what has arrived.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.verb = "Fetching"
        self.on_terminal = sys.stdout.isatty()
        self.told: tuple[str, int] | None = None
        self.finished = threading.Event()
        self.counter: threading.Thread | None = None
        self.show("")

    def heard(self, line: str) -> None:
        words = line.split()
        if line.startswith("Ignoring "):  # its marker does not fit this machine
            self.total -= 1
        elif line.startswith(("Collecting ", "Processing ", "Requirement already satisfied: ")) and len(words) > 1:
            self.done = min(self.done + 1, self.total)
            name = words[3] if line.startswith("Requirement") else words[1].rsplit("/", 1)[-1].split("-")[0]
            self.show(re.split(r"[=<>;\[]", name)[0])
        elif line.startswith("Installing collected packages"):
            self.verb, self.done, self.total = "Unpacking", 0, line.count(",") + 1
            self.show("")
            self.counter = threading.Thread(target=self.count_unpacked, args=(unpacked(),), daemon=True)
            self.counter.start()

    def count_unpacked(self, before: int) -> None:
        while not self.finished.wait(0.2):
            self.done = max(0, min(unpacked() - before, self.total))
            self.show("")

    def show(self, what: str) -> None:
        if self.on_terminal:
            width = 24
            filled = width * self.done // max(self.total, 1)
            bar = "━" * filled + "╌" * (width - filled)
            line = f"{self.verb:<9} {bar} {self.done:>2}/{self.total} {what}"[: shutil.get_terminal_size().columns - 1]
            print(f"\r\033[2K{line}", end="", flush=True)
            return
        third = 3 * self.done // max(self.total, 1)
        if self.told != (self.verb, third):
            self.told = (self.verb, third)
            print(f"{self.verb} packages: {self.done} of {self.total}", flush=True)

    def close(self) -> None:
        self.finished.set()
        if self.counter:
            self.counter.join()
        if self.on_terminal:
            print("\r\033[2K", end="", flush=True)


def unpacked() -> int:
    return sum(1 for _ in VENV.glob("lib/python*/site-packages/*.dist-info"))


def clean() -> int:
    """Remove all that was made here; the checkout is as cloned afterwards. Refuses while a stack runs."""
    sys.path.insert(0, str(ROOT))
    from deploy.local.places import scratch_dir

    if is_held(ROOT / ".local" / "lock"):
        return fail("A stack runs here: stop it first (Ctrl-C in its terminal).")
    if is_held(INSTALLING):
        return fail("Another make is installing here: wait for it.")
    doomed = [ROOT / name for name in (".venv", ".local", *CACHES)]
    doomed.append(ROOT / "tests" / "contract" / "supabase" / "node_modules")  # installed by the tests that need it
    scratch = scratch_dir(ROOT)
    if scratch.exists() and scratch.lstat().st_uid == os.getuid():
        doomed.append(scratch)
    doomed += [path for top in ("deploy", "services", "shared", "tests") for path in (ROOT / top).rglob("__pycache__")]
    for path in doomed:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    left = [str(path) for path in doomed if path.exists()]
    return fail(f"Could not remove {', '.join(left)}: made by another user?") if left else 0


def is_held(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def fail(sentence: str) -> int:
    print(sentence, file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
