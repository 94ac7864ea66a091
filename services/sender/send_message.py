"""Take what somebody wants to say: check all of it, write it down, wake who sends it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from services.sender.shapes import Send
from shared.domain.errors import Rejected
from shared.domain.ids import new_id
from shared.domain.person import Person
from shared.queue.bell import OutboxBell
from shared.store.sending import Sending
from shared.web.idempotency import digest_of
from shared.whatsapp.content import content_of
from shared.whatsapp.outbound import Bsuid, Content, Group, Problem, check, media_ids, message_type
from shared.whatsapp.outbound.reaction import Reaction
from shared.whatsapp.outbound.template import Template
from shared.whatsapp.templates import fill, fits
from shared.whatsapp.templates.stored import says, stored_definition
from shared.whatsapp.wire import Json


@dataclass(frozen=True, slots=True)
class _Said:
    """content: as it goes out. shown: what a person reads of it. problems: what Meta would refuse."""

    content: Content
    shown: str | None
    problems: list[Problem]


async def send_message(
    asked: Send, *, workspace_id: UUID, request_id: str, sending: Sending, bell: OutboxBell, as_user: Person
) -> str:
    """Queue a message and return it, as JSON. Raises: Rejected with all that is to mend; as `Sending`."""
    _refuse(_envelope_problems(asked))
    recipient = _recipient(asked)
    said = await _said(asked, workspace_id, sending, as_user)
    payload = said.content.graph()
    _refuse([*said.problems, *_contents_problems(asked, said)])
    _refuse(await _group_problems(asked, said.content, workspace_id, sending, as_user))
    _refuse(await _file_problems(payload, workspace_id, sending, as_user))
    message: Json = {
        "id": str(new_id()),
        **recipient,
        "message_type": message_type(said.content),
        "content": said.shown,
        "payload": payload,
        **_options(asked),
    }
    try:
        queued = await sending.send(
            workspace_id,
            message,
            request_id=request_id,
            # What it was made from is not what is said; and a request repeated across a deploy stays the same.
            digest=digest_of("send", asked.model_dump(mode="json", exclude={"suggestion_id"})),
            as_user=as_user,
        )
    except Rejected as error:
        raise await _explained(error, recipient, workspace_id, sending, as_user) from error
    await bell.ring()
    return queued


async def retry_message(
    message_id: UUID, *, workspace_id: UUID, request_id: str, sending: Sending, bell: OutboxBell, as_user: Person
) -> str:
    """Queue what a failed message said as a new one, and return that, as JSON. Raises: as `Sending`."""
    try:
        queued = await sending.retry(
            workspace_id,
            message_id,
            new_id=new_id(),
            request_id=request_id,
            digest=digest_of("retry", str(message_id)),
            as_user=as_user,
        )
    except Rejected as error:
        recipient = {"message_id": str(message_id)}
        raise await _explained(error, recipient, workspace_id, sending, as_user) from error
    await bell.ring()
    return queued


async def _explained(
    error: Rejected, recipient: Json, workspace_id: UUID, sending: Sending, as_user: Person
) -> Rejected:
    if error.code != "reply_window_closed":
        return error
    window = json.loads(await sending.recipient_window(workspace_id, recipient, as_user=as_user))
    return _window_closed(error, window)


def _refuse(problems: list[Problem]) -> None:
    if problems:
        more = {"problems": [asdict(problem) for problem in problems]}
        raise Rejected("the message cannot be sent so", code="not_valid", hint=problems[0].message, more=more)


def _envelope_problems(asked: Send) -> list[Problem]:
    problems = []
    ways = [asked.conversation_id, asked.contact_id, asked.to]
    if sum(way is not None for way in ways) != 1 or (asked.conversation_id is None) != (asked.channel_id is not None):
        sentence = "Name a conversation_id alone, or a channel_id with either a contact_id or a phone number (to)."
        problems.append(Problem("", "recipient", sentence))
    if (asked.content is None) == (asked.template is None):
        problems.append(Problem("", "content", "Say either a content or a template, and not both."))
    return problems


def _recipient(asked: Send) -> Json:
    if asked.conversation_id is not None:
        return {"conversation_id": str(asked.conversation_id)}
    if asked.to is None:
        return {"channel_id": str(asked.channel_id), "contact_id": str(asked.contact_id)}
    to = {"user_id": asked.to.user_id} if isinstance(asked.to, Bsuid) else {"wa_id": asked.to.digits()}
    return {"channel_id": str(asked.channel_id), "to": to}


def _options(asked: Send) -> Json:
    options: Json = {}
    if asked.reply_to is not None:
        options["reply_to_id" if _is_ours(asked.reply_to) else "reply_to_wamid"] = asked.reply_to
    if asked.send_at is not None:
        options["send_at"] = asked.send_at.isoformat()
    if asked.suggestion_id is not None:
        options["suggestion_id"] = str(asked.suggestion_id)
    if asked.seen_seq is not None:
        options["seen_seq"] = asked.seen_seq
    return options


def _is_ours(message: str) -> bool:
    try:
        UUID(message)
    except ValueError:
        return False
    return True


async def _said(asked: Send, workspace_id: UUID, sending: Sending, as_user: Person) -> _Said:
    """Return the content; a template with its values checked against what Meta approved."""
    if asked.template is not None:
        wanted: Json = {"template_id": str(asked.template.id)}
    elif isinstance(asked.content, Template):
        place = (
            ("conversation_id", asked.conversation_id) if asked.conversation_id else ("channel_id", asked.channel_id)
        )
        wanted = {place[0]: str(place[1]), "name": asked.content.name, "language": asked.content.language}
    else:
        assert asked.content is not None  # noqa: S101  the envelope was checked
        return _Said(asked.content, _shown(asked.content), [])
    row = json.loads(await sending.template(workspace_id, wanted, as_user=as_user))
    definition = stored_definition(row)
    if definition is None:
        raise Rejected(
            "the template's text is not known",
            code="template_not_known",
            hint="Synchronise the templates first: this one is known by its name only.",
        )
    if asked.template is not None:
        template, problems = fill(definition, asked.template.values, to=asked.to)
        return _Said(template, says(definition, template), _inside("template.values", problems))
    assert isinstance(asked.content, Template)  # noqa: S101  see above
    problems = fits(definition, asked.content, to=asked.to)
    return _Said(asked.content, says(definition, asked.content), _inside("content", problems))


def _shown(content: Content) -> str | None:
    if isinstance(content, Reaction):
        return content.emoji or None
    payload = content.graph()
    return content_of(payload["type"], payload)


def _contents_problems(asked: Send, said: _Said) -> list[Problem]:
    """Return what is wrong with the message by itself; a template that was filled in was checked as it was."""
    found = check(said.content, to=asked.to, reply_to=asked.reply_to)
    around = [problem for problem in found if problem.field.startswith(("to.", "reply_to"))]
    if asked.template is not None:
        return around
    return [*_inside("content", (problem for problem in found if problem not in around)), *around]


async def _group_problems(
    asked: Send, content: Content, workspace_id: UUID, sending: Sending, as_user: Person
) -> list[Problem]:
    """Return why this may not go to a group, if it is to one; what any group takes costs no look."""
    refused = [problem for problem in check(content, to=Group(group_id="any")) if problem.code == "not_in_groups"]
    if not refused or asked.conversation_id is None:
        return []
    found = json.loads(await sending.group(workspace_id, asked.conversation_id, as_user=as_user))
    return _inside("content" if asked.template is None else "template", refused) if found["group_id"] else []


async def _file_problems(payload: Json, workspace_id: UUID, sending: Sending, as_user: Person) -> list[Problem]:
    """Return which of our files are not what they are sent as; those that are not there are refused when it is sent."""
    wanted = list(media_ids(payload))
    if not wanted:
        return []
    known = json.loads(await sending.files(workspace_id, wanted, as_user=as_user))
    problems = []
    for media_id, kind, is_voice in _as_what(payload):
        file = known.get(media_id)
        if file is not None and (file["kind"] != kind or (is_voice and not file["is_voice"])):
            wants = "voice note" if is_voice else kind
            sentence = f"The file was uploaded as {file['kind']}; upload it as {wants} to send it so."
            problems.append(Problem("content" if payload["type"] != "template" else "template", "wrong_kind", sentence))
    return problems


def _as_what(value: object) -> Iterator[tuple[str, str, bool]]:
    """Yield our files in a body, each with the key it stands under: what Meta takes it for."""
    if isinstance(value, dict):
        for key, inner in value.items():
            for media_id in media_ids({"id": inner["id"]}) if isinstance(inner, dict) and "id" in inner else ():
                yield media_id, key, inner.get("voice") is True
            yield from _as_what(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _as_what(inner)


def _inside(place: str, problems: Iterable[Problem]) -> list[Problem]:
    return [
        Problem(f"{place}.{problem.field}" if problem.field else place, problem.code, problem.message)
        for problem in problems
    ]


def _window_closed(error: Rejected, window: Json) -> Rejected:
    """Say when the customer last wrote, and what can be said instead."""
    now = datetime.fromisoformat(window["server_time"])
    expires_at = window["window_expires_at"]
    is_open = expires_at is not None and datetime.fromisoformat(expires_at) > now  # but not when it was to be sent
    last = window["last_inbound_at"]
    hint = error.hint if is_open else window_sentence(datetime.fromisoformat(last) if last else None, now=now)
    shown = ("id", "template_name", "language", "category", "body_content")
    templates = [{name: template[name] for name in shown} for template in window["templates"]]
    more = {"last_inbound_at": last, "templates": templates}
    return Rejected(str(error), code=error.code, hint=hint, more=more)


def window_sentence(last_inbound_at: datetime | None, *, now: datetime) -> str:
    """Return why a free text may not go, and what may. Both times are aware."""
    if last_inbound_at is None:
        return "The customer has not written yet; send a template to begin."
    hours = int((now - last_inbound_at).total_seconds() // 3600)
    ago = f"{hours} hours" if hours < 72 else f"{hours // 24} days"
    return f"The customer last wrote {ago} ago; send a template instead."
