"""Keys are turned while everything runs: no token is ever out of reach, and none is overwritten."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from services.sender import keys
from services.sender.command_line import parse
from services.sender.seal import KeyPair, TokenOpener, new_key_pair
from shared.store.channels import ChannelWork
from shared.store.postgres import PostgresTransport
from tests.conftest import Database
from tests.integration.chore_runs import KEYS, give_token
from tests.world import World

NEWER: KeyPair = new_key_pair()


async def tokens(admin: psycopg.AsyncConnection, *private_keys: str) -> dict[str, str]:
    """What each stored token says to who holds these keys, by the key it is sealed to."""
    cursor = await admin.execute("select key_id, token_sealed from app.channel_tokens order by set_at")
    opener = TokenOpener(private_keys)
    return {key_id: opener.open(sealed, key_id) for key_id, sealed in await cursor.fetchall()}


@pytest.fixture
async def both(admin: psycopg.AsyncConnection, world: World) -> None:
    """Workspace A's token is sealed to the older key, B's to the newer one already."""
    await give_token(admin, world.workspace_a, world.channel_a, "token-of-a", KEYS)
    await give_token(admin, world.workspace_b, world.channel_b, "token-of-b", NEWER)


async def test_every_token_goes_to_the_newest_key_and_says_the_same(
    admin: psycopg.AsyncConnection, both: None, service_store: PostgresTransport
) -> None:
    opener = TokenOpener([NEWER.private_key, KEYS.private_key])
    work = ChannelWork(service_store)

    dry = await keys.rotate(work, opener, is_dry=True)
    untouched = await tokens(admin, KEYS.private_key, NEWER.private_key)
    done = await keys.rotate(work, opener, is_dry=False)
    again = await keys.rotate(work, opener, is_dry=False)

    assert [(one.resealed, one.current, one.unreadable) for one in (dry, done, again)] == [
        (1, 1, []),
        (1, 1, []),
        (0, 2, []),
    ]
    assert untouched == {KEYS.key_id: "token-of-a", NEWER.key_id: "token-of-b"}
    cursor = await admin.execute("select key_id, token_sealed from app.channel_tokens")
    newest = TokenOpener([NEWER.private_key])
    assert sorted(newest.open(sealed, key) for key, sealed in await cursor.fetchall()) == ["token-of-a", "token-of-b"]


async def test_a_token_set_meanwhile_is_not_overwritten(
    admin: psycopg.AsyncConnection, both: None, world: World, service_store: PostgresTransport
) -> None:
    class Meanwhile(ChannelWork):
        """Somebody sets another token between reading and writing."""

        async def reseal(self, *ids: Any, **sealed: Any) -> bool:
            await give_token(admin, world.workspace_a, world.channel_a, "a-newer-token", KEYS)
            return await super().reseal(*ids, **sealed)

    opener = TokenOpener([NEWER.private_key, KEYS.private_key])

    done = await keys.rotate(Meanwhile(service_store), opener, is_dry=False)

    assert (done.resealed, done.renewed) == (0, 1)
    assert await tokens(admin, KEYS.private_key, NEWER.private_key) == {
        KEYS.key_id: "a-newer-token",
        NEWER.key_id: "token-of-b",
    }


def test_the_command_says_what_it_did_and_what_it_could_not(
    both: None,
    world: World,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", database.url("test_service"))
    monkeypatch.setenv("WHATSAPP_TOKEN_KEYS", f"{NEWER.private_key}, {KEYS.private_key}")

    dry = keys.main(parse(["keys", "rotate", "--dry-run"]))
    shown = capsys.readouterr().out
    monkeypatch.setenv("WHATSAPP_TOKEN_KEYS", NEWER.private_key)
    lacking = keys.main(parse(["keys", "rotate", "--json"]))
    answer = json.loads(capsys.readouterr().out)

    assert (dry, lacking) == (0, 1)
    assert "1 would be sealed anew, 1 were so already." in shown
    assert answer["before"] == {KEYS.key_id: 1, NEWER.key_id: 1}
    (unreadable,) = answer["unreadable"]
    assert (unreadable["workspace_id"], unreadable["channel_id"]) == (str(world.workspace_a), str(world.channel_a))
    assert KEYS.key_id in unreadable["fix"]
    assert NEWER.private_key not in json.dumps(answer) + shown


def test_a_new_pair_opens_what_it_seals_and_says_where_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert keys.main(parse(["keys", "new", "--json"])) == 0
    made = json.loads(capsys.readouterr().out)
    assert keys.main(parse(["keys", "new"])) == 0
    printed = capsys.readouterr().out

    assert TokenOpener([made["private_key"]]).key_ids == (made["key_id"],)
    assert "WHATSAPP_TOKEN_KEYS=" in printed
    assert "WHATSAPP_TOKEN_PUBLIC_KEY=" in printed
    assert made["private_key"] not in printed
