"""A container engine for the smoke test: the one that is there, or one of its own that leaves no trace.

Its own: Debian's packages, unpacked into a folder (nothing is installed), started inside network, mount and process
namespaces of their own. Bridges, packet filter rules, forwarding and mounts exist in there only, and when the first
process in there ends, the kernel ends all others and takes the namespaces down. The machine outside is never changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# Debian 12's own engine is too old for health checks that start fast (Engine 25), and has no Compose v2 and no BuildKit
# client. Debian 13's are Go binaries that run on 12 too, all but runc (glibc 2.38). Tried 2026-11-23.
ENGINE_SUITE = "trixie"
ENGINE_PACKAGES = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "containerd")
HOST_PACKAGES = (
    "runc",
    "iptables",
    "libxtables12",
    "libip4tc2",
    "libip6tc2",
    "libnftnl11",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libseccomp2",
    "mmdebstrap",
)
NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc")
# Of the engine's default bridge, where builds run; inside the namespace only.
BRIDGE = "172.31.254.1"


class NoEngine(Exception):
    """There is none and none can be had; the sentence says what to do."""


def existing_problem() -> str | None:
    """Say why the engine that is there cannot be used; None if it can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    for command, oldest in (
        (["docker", "version", "--format", "{{.Server.Version}}"], (25, 0)),
        (["docker", "compose", "version", "--short"], (2, 24)),
    ):
        said = subprocess.run(command, capture_output=True, text=True, timeout=20)
        found = re.match(r"v?(\d+)\.(\d+)", said.stdout.strip())
        if said.returncode != 0 or found is None:
            return f"`{' '.join(command[:3])}` does not answer"
        if (int(found[1]), int(found[2])) < oldest:
            return f"`{' '.join(command[:3])}` is older than {oldest[0]}.{oldest[1]}"
    return None


def own_problem() -> str | None:
    """Say why no engine of one's own can be made here; None if it can."""
    if os.geteuid() != 0:
        return "this is not root"
    if shutil.which("apt-get") is None or codename() is None:
        return "this is not Debian 12 or newer"
    return None


def codename() -> str | None:
    """Return this Debian's name, or None on anything else."""
    with contextlib.suppress(OSError):
        release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
        if release.get("ID") == "debian" and int(release.get("VERSION_ID", '"0"').strip('"')) >= 12:
            return release.get("VERSION_CODENAME", "").strip('"') or None
    return None


def mirror() -> str:
    """Return where this machine gets Debian's packages from. Raises: NoEngine."""
    apt = Path("/etc/apt")
    for file in sorted(
        [*apt.glob("sources.list.d/*.sources"), apt / "sources.list", *apt.glob("sources.list.d/*.list")]
    ):
        if not file.exists():
            continue
        text = file.read_text()
        for found in re.finditer(r"^(?:URIs:\s*|deb\s+(?:\[[^]]*\]\s+)?)(\S+/debian)/?\s", text, re.MULTILINE):
            return found[1]
    raise NoEngine("No Debian archive is configured in /etc/apt.")


@dataclass(frozen=True, slots=True)
class Tools:
    """The unpacked packages."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def environment(self) -> dict[str, str]:
        """Return this process's environment, with the unpacked programs first."""
        libraries = self.root / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
        path = [self.folder / "bin", *(self.root / part for part in ("usr/sbin", "usr/bin", "sbin"))]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "COMPOSE_"))}
        return inherited | {
            "PATH": ":".join([*map(str, path), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]),
            "LD_LIBRARY_PATH": str(libraries),
            "XTABLES_LIBDIR": str(libraries / "xtables"),
            "DOCKER_CONFIG": str(self.folder / "config"),
            "LC_ALL": "C.UTF-8",
        }

    def fetch(self) -> str:
        """Download and unpack what is not there yet; return what was done. Raises: NoEngine."""
        done = self.folder / "unpacked"
        wanted = " ".join((ENGINE_SUITE, *ENGINE_PACKAGES, *HOST_PACKAGES))
        if done.exists() and done.read_text() == wanted:
            return "unpacked already"
        shutil.rmtree(self.folder, ignore_errors=True)
        debs = self.folder / "debs"
        debs.mkdir(parents=True)
        suite = str(codename())
        for name, packages in ((ENGINE_SUITE, ENGINE_PACKAGES), (suite, HOST_PACKAGES)):
            self._download(name, packages, debs)
        files = sorted(debs.glob("*.deb"))
        for file in files:
            _run(["dpkg-deb", "-x", str(file), str(self.root)])
        plugins = self.folder / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        for plugin in ("docker-compose", "docker-buildx"):
            (plugins / plugin).symlink_to(next(self.root.glob(f"usr/lib*/docker/cli-plugins/{plugin}")))
        (self.folder / "bin").mkdir()
        for name in ("iptables", "ip6tables"):
            (self.folder / "bin" / name).symlink_to(self.root / "usr" / "sbin" / f"{name}-nft")
        size = sum(file.stat().st_size for file in files)
        shutil.rmtree(debs)
        done.write_text(wanted)
        return f"{len(files)} packages, {size / 1e6:.0f} MB"

    def _download(self, suite: str, packages: tuple[str, ...], into: Path) -> None:
        """Let apt fetch and verify packages of a suite, with state of its own: the machine's lists stay as they are."""
        state = self.folder / f"apt-{suite}"
        for part in ("lists/partial", "cache/archives/partial"):
            (state / part).mkdir(parents=True)
        (state / "status").touch()
        sources = state / "sources.list"
        keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        sources.write_text(f"deb [signed-by={keyring}] {mirror()} {suite} main\n")
        options = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": state,
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", "-qq", *(part for key, value in options.items() for part in ("-o", f"{key}={value}"))]
        _run([*apt, "update"])
        _run([*apt, "download", *packages], cwd=into)
        shutil.rmtree(state)


def _run(command: list[str], **options: object) -> None:
    said = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if said.returncode != 0:
        raise NoEngine(f"`{command[0]}` failed: {said.stderr.strip()[-600:]}")


@contextlib.contextmanager
def running(tools: Tools, *, folder: Path, sockets: Path) -> Iterator[dict[str, str]]:
    """Run an engine while the block runs; yield the environment its commands need. Inside the namespaces only.

    `folder`: images and containers. `sockets`: a short path; the engine makes longer ones below it.
    Raises: NoEngine with the end of its log when it does not start.
    """
    environment = tools.environment()
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    socket, log_file = sockets / "docker.sock", folder / "dockerd.log"
    folder.mkdir(parents=True, exist_ok=True)
    with log_file.open("w") as log:
        daemon = subprocess.Popen(
            [
                "dockerd",
                f"--data-root={folder / 'data'}",
                f"--exec-root={sockets / 'exec'}",
                f"--pidfile={sockets / 'dockerd.pid'}",
                f"--host=unix://{socket}",
                f"--cgroup-parent=/{cgroup_name()}",
                f"--bip={BRIDGE}/24",
                "--config-file=/dev/null",
            ],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    environment["DOCKER_HOST"] = f"unix://{socket}"
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "version"], env=environment, capture_output=True).returncode != 0:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise NoEngine("The engine does not start:\n" + "\n".join(log_file.read_text().splitlines()[-8:]))
            time.sleep(0.2)
        yield environment
    finally:
        daemon.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(30)


def cgroup_name() -> str:
    """Return the name below which the engine's control groups are; known outside too, to remove them."""
    return "parley-smoke"


def remove_cgroups() -> None:
    """Remove the engine's control groups, which no namespace takes along; none has a process any more."""
    give_up_at = time.monotonic() + 10  # a group is busy until the last process in it is reaped
    while left := [Path(top) for top, _, _ in os.walk("/sys/fs/cgroup") if Path(top).name == cgroup_name()]:
        for folder in (Path(inner) for top in left for inner, _, _ in os.walk(top, topdown=False)):
            with contextlib.suppress(OSError):
                folder.rmdir()
        if time.monotonic() > give_up_at:
            raise NoEngine(f"control groups are left: {', '.join(map(str, left))}")
        time.sleep(0.1)


def network() -> Mapping[str, str]:
    """Return the state of this machine's network, to be compared before and after."""
    found = {
        name: Path(f"/proc/sys/net/{name}").read_text().strip()
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
        if Path(f"/proc/sys/net/{name}").exists()
    }
    for name, command in {
        "links": ["ip", "-json", "link"],
        "addresses": ["ip", "-json", "address"],
        "routes": ["ip", "-json", "route", "show", "table", "all"],
        "namespaces": ["ip", "-json", "netns"],
        "nftables": ["nft", "--stateless", "list", "ruleset"],
        "iptables": ["iptables-save"],
    }.items():
        if shutil.which(command[0]):
            said = subprocess.run(command, capture_output=True, text=True).stdout
            found[name] = (
                _without_counters(said) if command[0] == "ip" else re.sub(r"^#.*|\[\d+:\d+\]", "", said, flags=re.M)
            )
    return found


def _without_counters(said: str) -> str:
    def plain(value: object) -> object:
        if isinstance(value, dict):
            moving = ("valid_life_time", "preferred_life_time", "stats64", "expires", "used", "age")
            return {key: plain(inner) for key, inner in value.items() if key not in moving}
        return [plain(inner) for inner in value] if isinstance(value, list) else value

    try:
        return json.dumps(plain(json.loads(said or "[]")))
    except ValueError:
        return said


if __name__ == "__main__":
    sys.stdout.write(f"existing: {existing_problem() or 'usable'}; own: {own_problem() or 'possible'}\n")
