"""What processes write and Redis keeps holds nothing personal, however much went wrong meanwhile."""

from __future__ import annotations

import json

import httpx
import redis.asyncio

from tests.e2e.conftest import Stack, until

# Words that appear nowhere but in a customer's message, name and ids.
NAME = "Quetzalina Zyxwvut"
TEXT = "My flumphkin parcel broke, call me at 5511977712345"
WA_ID = "5511966612399"
USER_ID = "BR.9911223344556677"
CANARIES = (NAME, "Quetzalina", "flumphkin", "977712345", "966612399", "9911223344556677")


async def test_logs_metrics_and_redis_hold_nothing_personal(stack: Stack) -> None:
    sandbox = stack.address("sandbox")
    wamids = []
    before = await _attempts(stack)
    # Each as a customer of their own: a conversation that failed waits longer each time.
    for number, mode in enumerate(("none", "refusal", "nonsense", "overloaded", "invalid_json", "truncation")):
        fault = {"claude": {"mode": mode, "times": 1}} if mode != "none" else {}
        (await stack.http.put(f"{sandbox}/sandbox/faults", json=fault)).raise_for_status()
        who = {"name": NAME, "wa_id": f"{WA_ID}{number}", "user_id": f"{USER_ID}{number}"}
        wamids.append(await stack.send(**who, text=f"{TEXT} {mode}"))

        async def is_looked_at(wamid: str = wamids[-1]) -> bool:
            found = [m for m in await stack.messages() if m["wamid"] == wamid]
            return bool(found) and (await _attempts(stack)) - before >= len(wamids)

        await until(is_looked_at, within_s=20, what=f"Claude was asked, fault {mode}")
    await stack.http.put(f"{sandbox}/sandbox/faults", json={})
    await _provoke_errors(stack, wamids)
    replies = await _reply(stack, wamids[0])

    async def is_settled() -> bool:
        return all(m["analysis"]["state"] != "pending" for m in await stack.messages() if m["wamid"] in wamids)

    await until(is_settled, within_s=60, what="every message is done or given up")

    async def is_answered() -> bool:
        found = {m["id"]: m["status"] for m in await stack.messages()}
        return [found.get(reply) for reply in replies] == ["read", "failed"]

    await until(is_answered, within_s=30, what="one reply is read, one has failed")
    token = await stack._token()
    secrets = [token, stack.description["webhook"]["app_secret"], stack.description["sign_in"]["password"]]
    for place, text in (await _everything_written(stack)).items():
        for canary in (*CANARIES, *secrets):
            assert canary not in text, f"{place} holds {canary!r}"


async def test_every_line_our_processes_log_is_json_with_the_agreed_keys(stack: Stack) -> None:
    for name in ("ingest", "recorder", "ai_worker", "api", "sender", "dispatcher"):
        lines = (stack.state_dir / "logs" / f"{name}.log").read_text().splitlines()
        assert lines, name
        for line in lines:
            event = json.loads(line)
            assert {"event", "level", "timestamp", "service", "process"} <= event.keys(), line
            assert event["process"] == name, line


async def test_every_process_says_how_it_is(stack: Stack) -> None:
    for name, metrics in stack.description["addresses"]["metrics"].items():
        base = metrics.removesuffix("/metrics")
        for path in ("/live", "/ready"):
            assert (await stack.http.get(base + path)).status_code == 200, (name, path)
        text = (await stack.http.get(metrics)).text
        assert "process_resident_memory_bytes" in text, name


async def test_metrics_are_not_on_the_public_port(stack: Stack) -> None:
    ingest = stack.address("webhook").removesuffix("/api/webhooks/whatsapp")
    for address in (stack.address("api"), stack.address("sender"), ingest):
        answer = await stack.http.get(f"{address}/metrics")

        assert answer.status_code == 404


async def _attempts(stack: Stack) -> int:
    answer = await stack.http.get(f"{stack.address('sandbox')}/sandbox/claude/calls")
    return int(answer.json()["count"])


async def _reply(stack: Stack, wamid: str) -> list[str]:
    """Answer twice, the second time refused by Meta; and ask for what cannot be sent. Return the messages' ids."""
    to = {"conversation_id": await stack.conversation_of(wamid)}
    said = {"content": {"type": "text", "body": TEXT}}
    await stack.post("sender", f"/api/whatsapp/messages/{USER_ID}/cancel")
    await stack.post("sender", "/api/whatsapp/send", to | {"content": {"type": TEXT, "body": TEXT}})
    await stack.post("sender", "/api/whatsapp/send", to | {"content": {"type": "image", "link": NAME, "caption": TEXT}})
    kept = [(await stack.post("sender", "/api/whatsapp/send", to | said)).json()["id"]]
    fault = {"mode": "error", "code": 131026, "details": f"{WA_ID}: {TEXT}", "times": 1, "for": {"path": "/messages"}}

    async def is_read() -> bool:
        return any(m["id"] == kept[0] and m["status"] == "read" for m in await stack.messages())

    await until(is_read, within_s=20, what="the first reply is read")
    await stack.http.put(f"{stack.address('sandbox')}/sandbox/faults", json={"graph": [fault]})
    kept.append((await stack.post("sender", "/api/whatsapp/send", to | said)).json()["id"])
    return kept


async def _provoke_errors(stack: Stack, wamids: list[str]) -> None:
    """Make every process complain about something personal."""
    api, webhook = stack.address("api"), stack.address("webhook")
    personal = {"workspace_id": NAME, "cursor": TEXT}
    await stack.http.get(f"{api}/api/whatsapp/conversations", params=personal)
    await stack.http.get(f"{api}/api/whatsapp/conversations/{USER_ID}/messages", params=personal)
    headers = {"authorization": f"Bearer {await stack._token()}"}
    await stack.http.get(f"{api}/api/whatsapp/conversations", params=personal, headers=headers)
    await stack.http.get(f"{api}/api/{WA_ID}", headers=headers)
    await stack.http.post(webhook, content=TEXT.encode(), headers={"x-hub-signature-256": f"sha256={WA_ID}"})
    await stack.http.get(webhook, params={"hub.mode": "subscribe", "hub.verify_token": NAME, "hub.challenge": "1"})
    # Signed, but the parser can make nothing of it; and one without anything to tell who wrote.
    for raw in (TEXT, json.dumps({"object": "whatsapp_business_account", "entry": [{"changes": [{"field": TEXT}]}]})):
        await stack.http.post(f"{stack.address('sandbox')}/sandbox/webhooks", json={"raw": raw})


async def _everything_written(stack: Stack) -> dict[str, str]:
    written = {p.name: p.read_text(errors="replace") for p in (stack.state_dir / "logs").glob("*.log")}
    ours = {f"{name}.log" for name in ("ingest", "recorder", "ai_worker", "api", "sender", "dispatcher")}
    assert ours | {"postgres.log", "redis.log"} <= written.keys()
    for name, address in stack.description["addresses"]["metrics"].items():
        try:
            written[f"metrics of {name}"] = (await stack.http.get(address)).text
        except httpx.TransportError as error:
            raise AssertionError(f"{name} has no metrics") from error
    async with redis.asyncio.Redis.from_url(stack.description["redis"]["url"]) as client:
        async for key in client.scan_iter():
            value = await client.dump(key)
            written[f"redis key {key!r}"] = f"{key!r} {value!r}"
    return written
