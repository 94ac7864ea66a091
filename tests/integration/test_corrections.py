"""People in the loop: what they correct holds, what they make of suggestions is counted, nothing deleted is shown."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from services.ai_worker.examples import Example
from services.ai_worker.export_corrections import Exported, write_corrections
from services.ai_worker.message_analysis import DEFAULT_INTENTS
from services.api.analysis_shapes import Acceptance
from services.api.shapes import Message
from shared.storage.folder import FolderStorage
from shared.store.corrections import close_suggestions
from shared.store.postgres import PostgresTransport
from shared.store.webhooks import Webhooks
from tests.integration.lifecycle_rows import add_member
from tests.integration.send_api import Desk, add_template, desk_of
from tests.integration.sends import Sends
from tests.integration.test_analysis import Office, finish_due, office
from tests.integration.test_api import Client, as_problem, client_of
from tests.world import World, received, text_message, webhook

__all__ = ["office"]

MESSAGES = "/api/whatsapp/messages"
ANGRY = "My order has not arrived and I am furious!"


class Person:
    """Somebody at work in workspace A."""

    def __init__(self, client: Client, world: World, user: UUID) -> None:
        self._client, self._world, self._user = client, world, user

    async def ask(self, path: str, body: Any = None, *, method: str = "POST", **params: Any) -> Any:
        params = {"workspace_id": str(self._world.workspace_a)} | params
        return await self._client.ask(path, user=self._user, method=method, params=params, json=body)

    async def say(
        self, message_id: UUID, what: str, body: Any = None, *, method: str = "POST", **params: Any
    ) -> Message:
        """The message afterwards, valid in its documented shape and nothing more."""
        answer = await self.ask(f"{MESSAGES}/{message_id}/{what}", body, method=method, **params)
        assert answer.status_code == 200, answer.text
        return Message.model_validate_json(answer.content)

    async def refused(self, message_id: UUID, what: str, body: Any = None, **options: Any) -> tuple[int, str]:
        return as_problem(await self.ask(f"{MESSAGES}/{message_id}/{what}", body, **options))


@pytest.fixture
async def owner(api_store: PostgresTransport, world: World) -> AsyncIterator[Person]:
    async with client_of(api_store) as client:
        yield Person(client, world, world.owner_a)


async def analysed(office: Office, *texts: str, person: int = 1) -> list[UUID]:
    """Messages that Claude has read, oldest first."""
    before = {m["id"] for m in await office.messages()}
    await office.record(*texts, person=person)
    await finish_due(office.analyst())
    return [m["id"] for m in await office.messages() if m["id"] not in before]


# --- corrections ------------------------------------------------------------------------------------------------------


async def test_a_correction_holds_against_a_later_analysis_until_it_is_undone(office: Office, owner: Person) -> None:
    [message_id] = await analysed(office, ANGRY)
    [claude_said] = await office.messages()

    corrected = await owner.say(
        message_id, "analysis", {"sentiment": "positive", "intent": "thanks", "summary": "Is joking."}
    )
    await office.rows("update public.whatsapp_messages set ai_state = 'pending' returning 1")
    await office.rows(
        "insert into app.conversation_work (workspace_id, conversation_id, due_at)"
        " select workspace_id, conversation_id, now() from public.whatsapp_messages returning 1"
    )
    await finish_due(office.analyst())
    [again] = await office.messages()
    undone = await owner.say(message_id, "analysis/undo")

    assert office.claude.calls == 2
    assert (corrected.sentiment, corrected.intent, corrected.ai_summary) == ("positive", "thanks", "Is joking.")
    assert corrected.sentiment_score == -claude_said["sentiment_score"]  # as strong, on the other side
    assert corrected.priority == claude_said["priority"]  # what was not corrected is Claude's
    assert corrected.analysis.fields
    assert corrected.analysis.fields.sentiment.value == "negative"
    fields = ("sentiment", "sentiment_score", "intent", "ai_summary", "suggested_response", "priority", "language")
    assert [again[name] for name in fields] == [getattr(corrected, name) for name in fields]
    assert [getattr(undone, name) for name in fields] == [claude_said[name] for name in fields]
    assert undone.analysis.corrections == []
    log = await office.rows(
        "select action, actor, before, after from public.audit_log where action like 'message.%%' order by id"
    )
    assert [(row["action"], row["after"]["sentiment"]) for row in log] == [
        ("message.analysis_corrected", "positive"),
        ("message.correction_undone", "negative"),
    ]
    assert "joking" not in json.dumps([(row["before"], row["after"]) for row in log])


async def test_corrections_stack_and_each_is_taken_back_by_itself(office: Office, owner: Person) -> None:
    [message_id] = await analysed(office, ANGRY)
    first = await owner.say(message_id, "analysis", {"intent": "complaint", "priority": "low"})
    second = await owner.say(message_id, "analysis", {"intent": "refund"})
    assert await owner.say(message_id, "analysis", {"intent": "refund"}) == second  # said twice is said once
    [of_first, of_second] = second.analysis.corrections

    undone = await owner.say(message_id, "analysis/undo", correction_id=of_first.id)
    twice = await owner.say(message_id, "analysis/undo", correction_id=of_first.id)

    assert (first.intent, second.intent, second.priority) == ("complaint", "refund", "low")
    assert undone == twice
    assert (undone.intent, undone.priority, undone.analysis.corrections) == ("refund", "high", [of_second])


async def test_a_correction_that_says_nothing_or_nonsense_is_refused(office: Office, owner: Person) -> None:
    [message_id] = await analysed(office, ANGRY)

    for body, code in (
        ({}, "correction_not_valid"),
        ({"intent": "late_parcel"}, "correction_not_valid"),
        ({"sentiment_score": 0.5}, "correction_not_valid"),
        ({"sentiment": "negative", "sentiment_score": 0.5}, "correction_not_valid"),
        ({"language": "not a tag"}, "correction_not_valid"),
        ({"summary": " "}, "correction_not_valid"),
        ({"priority": None}, "not_valid"),
        ({"mood": "negative"}, "not_valid"),
    ):
        assert await owner.refused(message_id, "analysis", body) == (422, code), body
    assert (await owner.refused(message_id, "analysis/undo")) == (404, "correction_not_found")


async def test_strangers_and_viewers_correct_nothing(
    office: Office, api_store: PostgresTransport, admin: psycopg.AsyncConnection, world: World
) -> None:
    [message_id] = await analysed(office, ANGRY)
    viewer = await add_member(admin, world.workspace_a, "viewer")

    async with client_of(api_store) as client:
        for what, body, method in (
            ("analysis", {"intent": "refund"}, "POST"),
            ("analysis/undo", None, "POST"),
            ("suggestion", {"outcome": "used"}, "POST"),
            ("transcript", {"text": "Hello"}, "PUT"),
        ):
            of_b = await Person(client, world, world.owner_b).refused(message_id, what, body, method=method)
            viewing = await Person(client, world, viewer).refused(message_id, what, body, method=method)
            assert (of_b, viewing) == ((404, "message_not_found"), (403, "role_may_not_write"))
        asked = {"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}
        path = "/api/workspace/suggestion-acceptance"
        answer = await Person(client, world, viewer).ask(path, method="GET", **asked)
        assert as_problem(answer) == (403, "role_may_not_manage")


async def test_of_a_message_deleted_by_its_author_no_words_stay(office: Office, owner: Person) -> None:
    [message_id] = await analysed(office, ANGRY)
    await owner.say(message_id, "analysis", {"summary": "Wants his order.", "suggested_response": "We are on it, Ana."})
    [message] = await office.messages()

    await revoke(office, message["wamid"])

    [row] = await office.rows("select fields from public.analysis_corrections")
    [message] = await office.messages()
    assert (row["fields"], message["ai_summary"], message["suggested_response"]) == ({}, None, None)
    assert await owner.refused(message_id, "analysis", {"intent": "refund"}) == (409, "message_revoked")


async def test_corrections_become_examples_with_nothing_personal(office: Office, owner: Person, tmp_path: Path) -> None:
    await analysed(office, "Hello!")
    [message_id] = await analysed(office, "Call me at +49 151 23456789, I am FURIOUS.")
    await owner.say(message_id, "analysis", {"intent": "human_agent", "sentiment": "negative", "sentiment_score": -1})
    await owner.say(message_id, "analysis", {"priority": "urgent", "summary": "Wants a call at +49 151 23456789."})

    exported = await write_corrections(
        office.store, workspace_id=(await office.messages())[0]["workspace_id"], out=tmp_path / "set.jsonl"
    )

    [line] = (tmp_path / "set.jsonl").read_text("utf-8").splitlines()
    example = Example.model_validate_json(line)
    assert exported == Exported(examples=1, left_out=0)
    assert "23456789" not in line
    assert [said.text for said in example.history] == ["Hello!"]
    [message] = example.new_messages
    assert message.text == "Call me at [PHONE_1], I am FURIOUS."
    assert message.labels.model_dump(exclude_defaults=True) == {
        "sentiment": "negative",
        "intents": ["human_agent"],
        "priorities": ["urgent"],
        "summary_reference": "Wants a call at [PHONE_1].",
    }


async def test_the_database_knows_the_default_intents(admin: psycopg.AsyncConnection) -> None:
    cursor = await admin.execute(
        'select app.intent_names(\'{}\'), app.intent_names(\'{"intents": [{"name": "x"}, 3]}\')'
    )

    assert await cursor.fetchall() == [(list(DEFAULT_INTENTS), ["x"])]


async def revoke(office: Office, wamid: str) -> None:
    """Let customer 1 delete a message for everyone."""
    event = text_message("", wamid=f"{wamid}.revoke", user_id="US.1001", wa_id="12025550001")
    event["message"] = {k: v for k, v in event["message"].items() if k != "text"}
    event["message"] |= {"type": "revoke", "revoke": {"original_message_id": wamid}}
    await Webhooks(office.store).record([received(webhook(event))], settle_s=0)


# --- suggestions ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def sends(
    admin: psycopg.AsyncConnection, world: World, api_store: PostgresTransport, service_store: PostgresTransport
) -> Sends:
    made = Sends(admin, world, api_store, service_store)
    await made.prepare()
    return made


@pytest.fixture
async def desk(sends: Sends, empty_redis: str) -> AsyncIterator[Desk]:
    async with desk_of(sends, empty_redis) as made:
        yield made


async def test_a_reply_that_names_a_suggestion_says_whether_it_was_used_or_edited(
    office: Office, owner: Person, desk: Desk, world: World
) -> None:
    said = []
    for person, reply in enumerate(
        ("{}", "  {} ", "{} Kind regards, Maya", "No.", "We do not ship to the moon, sorry about that."), start=1
    ):
        [message_id] = await analysed(office, "Where is my order? I paid on Monday.", person=person)
        [message] = await office.rows("select * from public.whatsapp_messages where id = %s", message_id)
        body = reply.format(message["suggested_response"])
        sent = await desk.send(
            {
                "conversation_id": str(message["conversation_id"]),
                "content": {"type": "text", "body": body},
                "suggestion_id": str(message_id),
            }
        )
        [row] = await office.rows("select * from public.suggestion_feedback where message_id = %s", message_id)
        assert (row["reply_id"], row["decided_by"], row["source"]) == (sent.id, world.owner_a, "reply")
        said.append(row["outcome"])

    asked = {
        "from": (datetime.now(UTC) - timedelta(days=1)).isoformat(),
        "to": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
    }
    answer = await owner.ask("/api/workspace/suggestion-acceptance", method="GET", **asked)

    assert said == ["used", "used", "edited", "ignored", "ignored"]
    [row] = Acceptance.model_validate_json(answer.content).items
    assert (row.used, row.edited, row.ignored, row.on_offer, row.acceptance) == (2, 1, 2, 0, 0.6)
    assert (row.intent, row.prompt_version) == ("order_status", (await office.attempts())[0]["prompt_version"])


async def test_a_suggestion_passed_over_is_ignored_by_the_next_reply_or_by_time(
    office: Office, owner: Person, desk: Desk
) -> None:
    first, second = await analysed(office, "Where is my order?", "Hello? I paid on Monday.")
    [message] = await office.rows("select * from public.whatsapp_messages where id = %s", second)
    shown = {r["message_id"]: r["outcome"] for r in await office.rows("select * from public.suggestion_feedback")}
    assert shown.get(first) in (None, "superseded")
    assert second in shown

    await desk.send(
        {"conversation_id": str(message["conversation_id"]), "content": {"type": "text", "body": "One moment."}}
    )
    await analysed(office, "Where is my parcel?", person=2)
    await office.rows("update public.suggestion_feedback set suggested_at = now() - interval '73 hours' returning 1")
    closed = await close_suggestions(office.store, after_hours=72)
    [third] = await office.rows("select * from public.suggestion_feedback where source = 'time'")
    rated = await owner.say(third["message_id"], "suggestion", {"outcome": "used"})

    shown = {
        r["message_id"]: (r["outcome"], r["source"])
        for r in await office.rows("select * from public.suggestion_feedback")
    }
    assert shown[second] == ("ignored", "reply")
    assert (closed, third["outcome"]) == (1, "ignored")
    assert rated.analysis.suggestion
    assert (rated.analysis.suggestion.outcome, rated.analysis.suggestion.source) == ("used", "person")


async def test_a_closed_window_gets_a_template_that_goes_out_with_one_click(office: Office, desk: Desk) -> None:
    body = [{"type": "BODY", "text": "About your order {{1}}: may we write to you again?"}]
    wanted = await add_template(desk.sends, "order_update", body)
    await add_template(
        desk.sends, "sale", [{"type": "BODY", "text": "Our sale!"}], category="marketing", status="paused"
    )
    await add_template(desk.sends, "photo", [{"type": "HEADER", "format": "IMAGE"}, {"type": "BODY", "text": "Look"}])
    yesterday = text_message(
        "Where is my order A-1234? It is late.", wamid="wamid.old", sent_at=datetime.now(UTC) - timedelta(hours=25)
    )
    await Webhooks(office.store).record([received(webhook(yesterday))], settle_s=0)
    await finish_due(office.analyst())

    [message] = await office.messages()
    [analysis] = await office.rows("select result from public.message_analyses")
    template = analysis["result"]["suggested_template"]
    sent = await desk.send(
        {
            "conversation_id": str(message["conversation_id"]),
            "template": {"id": template["id"], "values": template["values"]},
            "suggestion_id": str(message["id"]),
        }
    )

    assert (template["id"], template["template_name"]) == (str(wanted), "order_update")
    assert sent.content == template["text"]
    assert "1234" in template["text"]
    assert message["suggested_response"]
    [row] = await office.rows("select outcome, similarity from public.suggestion_feedback")
    assert (row["outcome"], row["similarity"]) == ("used", 1)


# --- what Claude is shown ---------------------------------------------------------------------------------------------


def asked_of(office: Office) -> list[dict[str, Any]]:
    """The document of each call about messages, as Claude got it."""
    prompts = [call["prompt"] for call in office.claude.record()["calls"]]
    texts = [prompt["messages"][0]["content"] for prompt in prompts]
    documents = [
        json.loads(text.removeprefix("<data>\n").removesuffix("\n</data>")) for text in texts if isinstance(text, str)
    ]
    return [document for document in documents if "new_messages" in document]


@pytest.fixture
def prompts(office: Office) -> Iterator[None]:
    """Let the sandbox keep what it is asked."""
    office.claude.http.put("/sandbox/faults", json={"record_prompts": True}).raise_for_status()
    yield
    office.claude.http.put("/sandbox/faults", json={"record_prompts": False}).raise_for_status()


async def test_what_was_revoked_is_never_shown_to_claude_neither_as_news_nor_as_history(
    office: Office, prompts: None
) -> None:
    await office.record("My secret is kumquat.", "My other secret is rambutan.")
    first, second = await office.messages()
    await revoke(office, first["wamid"])
    await finish_due(office.analyst())
    await revoke(office, second["wamid"])
    await office.record("Where is my order?", "Hello?")

    await finish_due(office.analyst())

    asked = json.dumps(office.claude.record()["calls"])
    assert "kumquat" not in asked
    assert [[m["text"] for m in document["new_messages"]] for document in asked_of(office)] == [
        ["My other secret is rambutan."],
        ["Where is my order?", "Hello?"],
    ]
    assert asked_of(office)[1]["history"] == []


async def test_media_are_read_by_caption_and_kind_and_voice_notes_by_their_transcript(
    office: Office, owner: Person, prompts: None
) -> None:
    await office.rows("""update public.workspaces set settings = '{"analyse_conversations": false}' returning 1""")
    await Webhooks(office.store).record(
        [received(webhook(media("image"), media("document", caption="My invoice"), media("audio"), media("sticker")))],
        settle_s=0,
    )
    await finish_due(office.analyst())
    voice = next(m for m in await office.messages() if m["message_type"] == "audio")
    assert await office.states() == [
        ("done", None),
        ("done", None),
        ("skipped", "no_transcript"),
        ("skipped", "unsupported_type"),
    ]

    told = await owner.say(voice["id"], "transcript", {"text": " I want my money back! "}, method="PUT")
    again = await owner.say(voice["id"], "transcript", {"text": "I want my money back!"}, method="PUT")
    await finish_due(office.analyst())

    [read] = await office.rows("select * from public.whatsapp_messages where id = %s", voice["id"])
    assert (told, told.transcript, told.analysis.state) == (again, "I want my money back!", "pending")
    assert (read["ai_state"], read["intent"]) == ("done", "refund")
    first, second = asked_of(office)
    assert first["new_messages"] == [
        {"ref": "m1", "text": "", "kind": "image"},
        {"ref": "m2", "text": "My invoice", "kind": "document"},
    ]
    assert second["new_messages"] == [{"ref": "m1", "text": "I want my money back!", "kind": "voice note"}]
    assert second["history"][0] == {"from": "customer", "text": "", "kind": "image"}
    assert await owner.refused(voice["id"], "transcript", {"text": "No."}, method="PUT") == (409, "transcript_exists")
    await revoke(office, voice["wamid"])
    [gone] = await office.rows("select transcript from public.whatsapp_messages where id = %s", voice["id"])
    assert gone["transcript"] is None


JPEG = b"\xff\xd8\xff\xe0 a picture of a kumquat"


async def test_a_picture_is_shown_once_it_is_stored_where_the_workspace_wants_it(
    office: Office, prompts: None, tmp_path: Path
) -> None:
    seen, versions = [], []
    for vision in (True, False):
        await office.rows("update public.workspaces set settings = %s returning 1", json.dumps({"vision": vision}))
        await Webhooks(office.store).record([received(webhook(media("image", caption="Look!")))], settle_s=0)
        analyst = office.analyst(storage=FolderStorage(tmp_path, None))
        await finish_due(analyst)  # the file is not there yet: by its caption
        await store_picture(office, tmp_path)
        await finish_due(analyst)
        await finish_due(analyst)  # and not again and again
        calls = office.claude.record()["calls"]
        seen.append([_pictures(call["prompt"]) for call in calls])
        versions = [call["prompt_version"] for call in await office.attempts()]
        assert {state for state, _ in await office.states()} == {"done"}
        assert await office.work() == []

    assert seen == [[[], [JPEG]], [[], [JPEG], []]]
    assert [version.endswith("+vision") for version in versions] == [False, True, False]


async def test_a_picture_that_cannot_be_had_costs_nothing_but_itself(
    office: Office, prompts: None, tmp_path: Path
) -> None:
    await office.rows("update public.workspaces set settings = %s returning 1", json.dumps({"vision": True}))
    await Webhooks(office.store).record([received(webhook(media("image", caption="Look!")))], settle_s=0)
    await store_picture(office, None)
    for storage in (FolderStorage(tmp_path, None), None):
        await finish_due(office.analyst(storage=storage))

    assert await office.states() == [("done", None)]
    assert [_pictures(call["prompt"]) for call in office.claude.record()["calls"]] == [[]]


def _pictures(prompt: Any) -> list[bytes]:
    content = prompt["messages"][0]["content"]
    blocks = content if isinstance(content, list) else []
    return [base64.b64decode(block["source"]["data"]) for block in blocks if block["type"] == "image"]


def _write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(JPEG)


async def store_picture(office: Office, folder: Path | None) -> None:
    """Store what Meta has of every image that waits, as the dispatcher does; `folder` None: and lose it."""
    for row in await office.rows("select * from public.media where state = 'pending'"):
        begun = json.loads(
            await office.store.call(
                "begin_media_fetch", {"p_workspace_id": str(row["workspace_id"]), "p_media_id": str(row["id"])}
            )
        )
        if folder is not None:
            _write(folder / begun["storage_key"])
        result = {"state": "stored", "sniffed_type": "image/jpeg", "size_bytes": len(JPEG)}
        await office.store.call(
            "finish_media_fetch",
            {"p_workspace_id": str(row["workspace_id"]), "p_media_id": str(row["id"]), "p_result": result},
        )


async def test_a_thumbs_down_on_what_we_wrote_has_the_conversation_read_again(
    office: Office, desk: Desk, prompts: None
) -> None:
    await office.rows("update public.workspaces set settings = '{}' returning 1")
    await analysed(office, "Do you sell bikes?", "Red ones?", "Hello?")
    conversation = (await office.messages())[0]["conversation_id"]
    sent = await desk.sends.send("No.", conversation_id=conversation)
    await desk.sends.finish((await desk.sends.claim())["messages"], "accepted")
    ours = (await desk.sends.message(sent["id"]))["wamid"]
    await finish_due(office.analyst())
    before = len(office.claude.record()["calls"])

    calls = []
    for emoji in ("❤️", "👎🏽"):
        await react(office, ours, emoji)
        await finish_due(office.analyst())
        calls.append(office.claude.record()["calls"][before:])

    assert [len(made) for made in calls] == [0, 1]  # a heart alone says nothing to look at
    assert "👎🏽" in calls[1][0]["prompt"]["messages"][0]["content"]
    assert len(await office.rows("select from public.conversation_analyses")) == 2
    assert await office.work() == []


async def react(office: Office, wamid: str, emoji: str) -> None:
    """Let customer 1 react to a message."""
    event = text_message("", wamid=f"{wamid}.{emoji}", user_id="US.1001", wa_id="12025550001")
    event["message"] = {k: v for k, v in event["message"].items() if k != "text"}
    event["message"] |= {"type": "reaction", "reaction": {"message_id": wamid, "emoji": emoji}}
    await Webhooks(office.store).record([received(webhook(event))], settle_s=0)


def media(kind: str, *, caption: str | None = None) -> dict[str, Any]:
    """A file of customer 1's."""
    number = next(_numbers)
    event = text_message("", wamid=f"wamid.media.{number:04}", user_id="US.1001", wa_id="12025550001")
    event["message"].pop("text")
    file = {"id": str(number), "mime_type": "image/jpeg"} | ({"caption": caption} if caption else {})
    event["message"] |= {"type": kind, kind: file}
    return event


_numbers = itertools.count(1)
