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
    for mode in ("none", "refusal", "nonsense", "overloaded", "invalid_json", "truncation"):
        fault = {"claude": {"mode": mode, "times": 1}} if mode != "none" else {}
        (await stack.http.put(f"{sandbox}/sandbox/faults", json=fault)).raise_for_status()
        wamids.append(await stack.send(name=NAME, wa_id=WA_ID, user_id=USER_ID, text=f"{TEXT} {mode}"))

        async def is_looked_at(wamid: str = wamids[-1]) -> bool:
            found = [m for m in await stack.messages() if m["wamid"] == wamid]
            return bool(found) and (await _attempts(stack)) >= len(wamids)

        await until(is_looked_at, within_s=20, what=f"Claude was asked, fault {mode}")
    await stack.http.put(f"{sandbox}/sandbox/faults", json={})
    await _provoke_errors(stack, wamids)

    async def is_settled() -> bool:
        return all(m["analysis"]["state"] != "pending" for m in await stack.messages() if m["wamid"] in wamids)

    await until(is_settled, within_s=60, what="every message is done or given up")
    token = await stack._token()
    secrets = [token, stack.description["webhook"]["app_secret"], stack.description["sign_in"]["password"]]
    for place, text in (await _everything_written(stack)).items():
        for canary in (*CANARIES, *secrets):
            assert canary not in text, f"{place} holds {canary!r}"


async def test_every_line_our_processes_log_is_json_with_the_agreed_keys(stack: Stack) -> None:
    for name in ("ingest", "recorder", "ai_worker", "api"):
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
    for address in (stack.address("api"), stack.address("webhook").removesuffix("/api/webhooks/whatsapp")):
        answer = await stack.http.get(f"{address}/metrics")

        assert answer.status_code == 404


async def _attempts(stack: Stack) -> int:
    answer = await stack.http.get(f"{stack.address('sandbox')}/sandbox/claude/calls")
    return int(answer.json()["count"])


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
    assert {"ingest.log", "recorder.log", "ai_worker.log", "api.log", "postgres.log", "redis.log"} <= written.keys()
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
