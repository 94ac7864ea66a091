"""Supabase without Docker: the npm package `@supabase/lite` with our migrations, installed and started by the tests."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import httpx
import jwt
import pytest
from psycopg import sql

from deploy.local.ports import HOST, any_free_port
from shared.domain.person import Person

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent / "supabase"
JWT_SECRET = "the contract tests' secret, longer than thirty-two bytes"
PUBLISHABLE_KEY = "sb_publishable_contract"
SECRET_KEY = "sb_secret_contract"
PASSWORD = "open sesame, please"
_STARTS_WITHIN_S = 60.0
_INSTALLS_WITHIN_S = 300.0
_TRUNCATE_ALL = """
    do $$
    begin
      execute (
        select 'truncate ' || string_agg(format('%I.%I', n.nspname, c.relname), ', ') || ' cascade'
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('public', 'app') and c.relkind in ('r', 'p') and not c.relispartition);
    end;
    $$"""


@dataclass(frozen=True, slots=True)
class Rows:
    """What psycopg's cursor is to those who only fetch."""

    rows: list[tuple[Any, ...]]

    async def fetchall(self) -> list[tuple[Any, ...]]:
        return self.rows

    async def fetchone(self) -> tuple[Any, ...] | None:
        return self.rows[0] if self.rows else None


@dataclass(frozen=True)
class SupabaseLite:
    """A running project: its address, its keys, and a superuser's way in."""

    url: str
    process: subprocess.Popen[str]
    said: Path
    lock: threading.Lock = field(default_factory=threading.Lock)

    async def execute(self, query: str, values: Sequence[object] = ()) -> Rows:
        """Run SQL as superuser, with %s filled in: what `psycopg.AsyncConnection.execute` is on the other side."""
        parts = query.split("%s")
        filled = parts[0] + "".join(
            sql.Literal(value).as_string(None) + part for value, part in zip(values, parts[1:], strict=True)
        )
        return await asyncio.to_thread(self.rows, filled)

    def rows(self, query: str) -> Rows:
        """Run SQL as superuser; values arrive as JSON."""
        with self.lock:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(json.dumps({"sql": query}) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer
        return Rows([tuple(row.values()) for row in answer["rows"]])

    def clear(self) -> Self:
        """Forget every row of ours; accounts stay."""
        self.rows(_TRUNCATE_ALL)
        return self

    def token(self, **claims: object) -> str:
        """A token of this project's own signing; a made-up person's, or of a role without one."""
        now = int(time.time())
        issued = {"iss": f"{self.url}/auth/v1", "aud": "authenticated", "iat": now - 5, "exp": now + 600}
        return jwt.encode(issued | claims, JWT_SECRET, "HS256")

    def person(self, user: UUID, **changed: object) -> Person:
        """A signed-in person, without the signing in."""
        claims = {"sub": str(user), "role": "authenticated", "email": f"{user}@example.com"}
        return Person(user, json.dumps(claims), self.token(**claims | changed))

    def sign_up(self, email: str) -> UUID:
        """Make an account, as a person does."""
        body = self._auth("/auth/v1/signup", {"email": email, "password": PASSWORD})
        return UUID(body["user"]["id"])

    def sign_in(self, email: str) -> str:
        """Return the access token of the password flow."""
        return str(
            self._auth("/auth/v1/token?grant_type=password", {"email": email, "password": PASSWORD})["access_token"]
        )

    def _auth(self, path: str, body: Mapping[str, str]) -> dict[str, Any]:
        # Plain HTTP: supabase-py's auth client cannot parse lite's timestamps.
        with httpx.Client(base_url=self.url, headers={"apikey": PUBLISHABLE_KEY}, trust_env=False) as http:
            answer = http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def start(folder: Path) -> Iterator[SupabaseLite]:
    """Run one until the caller is done with it."""
    install()
    port = any_free_port()
    url = f"http://{HOST}:{port}"
    options = {
        "url": url,
        "port": port,
        "jwtSecret": JWT_SECRET,
        "publishableKey": PUBLISHABLE_KEY,
        "secretKey": SECRET_KEY,
        "files": [str(path) for path in sorted((ROOT / "supabase" / "migrations").glob("*.sql"))],
    }
    said = folder / "supabase-lite.log"  # it prints every refusal, at length
    with said.open("w") as log:
        process = subprocess.Popen(
            ["node", "server.mjs", json.dumps(options)],
            cwd=HERE,
            stdin=subprocess.PIPE,  # closed when we end, however we end: then it ends too
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    giving_up = threading.Timer(_STARTS_WITHIN_S, process.kill)
    giving_up.start()
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        giving_up.cancel()
        assert first, f"Supabase lite did not start:\n{said.read_text()[-4000:]}"
        yield SupabaseLite(url, process, said)
    finally:
        giving_up.cancel()
        process.kill()
        process.wait(10)


def install() -> None:
    """Bring `supabase/node_modules` up to its lock; nothing to do takes milliseconds."""
    _require_node()
    stamp = HERE / "node_modules" / ".parley-lock"
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    with (HERE / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one installs, the others wait
        if stamp.exists() and stamp.read_text() == digest:
            return
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund"],
            cwd=HERE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_INSTALLS_WITHIN_S,
        )
        if done.returncode != 0:
            pytest.fail(f"npm ci in {HERE} failed:\n{done.stdout[-4000:]}", pytrace=False)
        stamp.write_text(digest)


def _require_node() -> None:
    found = ""
    if shutil.which("node") and shutil.which("npm"):
        found = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout
        major = re.match(r"v(\d+)", found)
        if major and int(major[1]) >= 20:
            return
    have = f"this is {found.strip()}" if found else "node or npm is not on the PATH"
    pytest.fail(f"Install Node 20 or newer with npm ({have}): the tests run Supabase's APIs on it.", pytrace=False)
