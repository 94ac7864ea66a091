"""Stand-ins for the base images, made of Debian's packages where no registry can be reached.

They carry the tags that the Dockerfile and docker-compose.yml name, the same programs in the same places, the same
users by number, and entry points that do the same for the settings we use. What they cannot show: the real images'
sizes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.compose.engine import NoEngine, Tools, codename, mirror

_SLIM = 'rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale "$1"/usr/lib/llvm* "$1"/var/log/*.log'

_POSTGRES_ENTRYPOINT = r"""#!/bin/sh
# As the real image's for what we use: makes the database the first time, then runs what it was told.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  printf %s "$POSTGRES_PASSWORD" > /tmp/password
  # shellcheck disable=SC2086
  initdb -D "$PGDATA" -U postgres --pwfile=/tmp/password -A scram-sha-256 ${POSTGRES_INITDB_ARGS:-} >/dev/null
  rm /tmp/password
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  echo "create database $POSTGRES_DB" | postgres --single -D "$PGDATA" postgres >/dev/null
fi
exec "$@" -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql
"""


@dataclass(frozen=True, slots=True)
class Root:
    """A root file system several stand-ins may share. `suite` None: this machine's own Debian."""

    name: str
    suite: str | None
    packages: tuple[str, ...]
    hooks: tuple[str, ...] = ()


PYTHON = Root(
    name="python",
    suite="bookworm",
    packages=("python3", "python3-venv", "python3-pip", "ca-certificates"),
    hooks=('ln -s /usr/bin/python3 "$1"/usr/local/bin/python', 'ln -s /usr/bin/python3 "$1"/usr/local/bin/python3'),
)
SERVERS = Root(
    name="servers",
    suite="trixie",
    packages=("postgresql-17", "redis-server", "nginx-light", "curl"),
    hooks=(
        'chroot "$1" usermod -o -u 999 postgres',
        'chroot "$1" usermod -o -u 999 redis',
        'mkdir -p "$1"/data "$1"/var/lib/postgresql/data "$1"/docker-entrypoint-initdb.d',
        'chown 999:999 "$1"/data "$1"/var/lib/postgresql/data',
        'chmod 700 "$1"/var/lib/postgresql/data',
        f"cat > \"$1\"/usr/local/bin/docker-entrypoint.sh <<'END'\n{_POSTGRES_ENTRYPOINT}END",
        'chmod 755 "$1"/usr/local/bin/docker-entrypoint.sh',
        'rm -rf "$1"/var/lib/postgresql/17',
    ),
)

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Tag → its root file system and what its image says. A test holds the tags to those the compose file uses.
STAND_INS: Mapping[str, tuple[Root, tuple[str, ...]]] = {
    "python:3.11-slim-bookworm": (PYTHON, (f"ENV {_PATH}", 'CMD ["python3"]')),
    "postgres:17-bookworm": (
        SERVERS,
        (
            f"ENV {_PATH}:/usr/lib/postgresql/17/bin",
            "ENV PGDATA=/var/lib/postgresql/data",
            'ENTRYPOINT ["docker-entrypoint.sh"]',
            'CMD ["postgres"]',
        ),
    ),
    "redis:7.2-bookworm": (SERVERS, (f"ENV {_PATH}", "WORKDIR /data", 'CMD ["redis-server"]')),
    "nginx:1.28-bookworm": (SERVERS, (f"ENV {_PATH}", "STOPSIGNAL SIGQUIT", 'CMD ["nginx", "-g", "daemon off;"]')),
}


def make_root(root: Root, tools: Tools, folder: Path) -> str:
    """Make the archive of a root file system unless it is there; return what was done. Raises: NoEngine."""
    archive = folder / f"{root.name}.tar"
    recipe = folder / f"{root.name}.recipe"
    if archive.exists() and recipe.exists() and recipe.read_text() == repr(root):
        return "made already"
    folder.mkdir(parents=True, exist_ok=True)
    said = subprocess.run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=apt",
            f"--include={','.join(root.packages)}",
            *(f"--customize-hook={hook}" for hook in (*root.hooks, _SLIM)),
            root.suite or str(codename()),
            str(archive),
            mirror(),
        ],
        env=tools.environment(),
        capture_output=True,
        text=True,
    )
    if said.returncode != 0:
        archive.unlink(missing_ok=True)
        raise NoEngine(f"mmdebstrap failed: {said.stderr.strip()[-800:]}")
    recipe.write_text(repr(root))
    return f"{archive.stat().st_size / 1e6:.0f} MB"


def import_all(folder: Path, environment: Mapping[str, str]) -> None:
    """Give the engine an image under each tag. Raises: NoEngine."""
    for root in {root.name: root for root, _ in STAND_INS.values()}.values():
        _docker(["import", str(folder / f"{root.name}.tar"), _rootfs(root)], environment)
    for tag, (root, lines) in STAND_INS.items():
        _docker(["build", "-q", "-t", tag, "-"], environment, "\n".join((f"FROM {_rootfs(root)}", *lines)))


def _rootfs(root: Root) -> str:
    return f"parley-stand-in/{root.name}:latest"


def _docker(arguments: list[str], environment: Mapping[str, str], stdin: str = "") -> None:
    said = subprocess.run(["docker", *arguments], env=environment, input=stdin, capture_output=True, text=True)
    if said.returncode != 0:
        raise NoEngine(f"docker {arguments[0]} failed: {said.stderr.strip()[-400:]}")
