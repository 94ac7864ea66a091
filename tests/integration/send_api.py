"""The send API over its real app and database, as a frontend calls it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
from psycopg.types.json import Jsonb
from structlog.testing import capture_logs

from services.sender.shapes import Message, SendProblem
from services.sender.web import make_app
from shared.auth.tokens import TokenVerifier
from shared.domain.ids import new_id
from shared.queue.bell import OutboxBell
from shared.queue.connection import connect
from shared.store.sending import Sending
from shared.web.app import Observe
from shared.whatsapp.outbound.template import ButtonValue, CurrencyValue, DateTimeValue, Template, UrlValue
from tests.integration.sends import Sends
from tests.integration.test_api import ISSUER, SECRET, as_problem, token
from tests.world import WABA_A

SEND = "/api/whatsapp/send"
_BUTTONS = {"quick_reply": "QUICK_REPLY", "url": "URL", "copy_code": "COPY_CODE"}


class Desk:
    """Somebody who sends, in workspace A unless they say otherwise."""

    def __init__(self, http: httpx.AsyncClient, sends: Sends) -> None:
        self._http, self.sends = http, sends

    async def ask(
        self,
        path: str,
        body: Any = None,
        *,
        user: UUID | None = None,
        key: str | None = "",
        workspace_id: UUID | None = None,
        signed_in: bool = True,
    ) -> httpx.Response:
        """POST; `key`: "" makes one up, None sends none."""
        world = self.sends.world
        headers = {"authorization": f"Bearer {token(user or world.owner_a)}"} if signed_in else {}
        if key is not None:
            headers["idempotency-key"] = key or str(uuid4())
        params = {"workspace_id": str(workspace_id or world.workspace_a)}
        return await self._http.post(path, json=body, params=params, headers=headers)

    async def send(self, body: Any, **options: Any) -> Message:
        """The message that was taken, valid in its documented shape and nothing more."""
        return taken(await self.ask(SEND, body, **options))

    async def refused(self, body: Any, path: str = SEND, **options: Any) -> tuple[int, str]:
        return as_refusal(await self.ask(path, body, **options))


def taken(answer: httpx.Response, status: int = 202) -> Message:
    assert answer.status_code == status, answer.text
    return Message.model_validate_json(answer.content)


def as_refusal(answer: httpx.Response) -> tuple[int, str]:
    SendProblem.model_validate_json(answer.content)
    members = json.loads(answer.content)
    assert members["hint"], members
    for extra in ("last_inbound_at", "templates"):
        members.pop(extra, None)
    return as_problem(httpx.Response(answer.status_code, headers=answer.headers, content=json.dumps(members)))


@asynccontextmanager
async def desk_of(sends: Sends, redis_url: str) -> AsyncIterator[Desk]:
    """The app, called without a socket between."""
    async with (
        httpx.AsyncClient(trust_env=False) as nowhere,
        connect(redis_url, timeout_s=1, max_connections=4) as redis,
    ):
        verifier = TokenVerifier(issuer=ISSUER, hs256_secret=SECRET, http=nowhere)
        app = Observe(make_app(sending=Sending(sends.api), bell=OutboxBell(redis), verifier=verifier))
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://sender") as http:
            with capture_logs():
                yield Desk(http, sends)


async def add_template(
    sends: Sends,
    name: str,
    components: list[dict[str, Any]],
    *,
    category: str = "utility",
    status: str = "approved",
    language: str = "en_US",
) -> UUID:
    """Insert a template of workspace A's account."""
    template_id = new_id()
    await sends.admin.execute(
        "insert into public.whatsapp_templates"
        " (workspace_id, id, waba_id, template_name, language, category, status, components)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s)",
        (sends.world.workspace_a, template_id, WABA_A, name, language, category, status, Jsonb(components)),
    )
    return template_id


HELLO = [{"type": "BODY", "text": "Hello {{1}}, your parcel {{2}} is here."}]


def components_for(template: Template) -> tuple[str, list[dict[str, Any]]]:
    """The category and the components of a template that these values fit."""
    if template.name == "verify_code":
        buttons = [{"type": "OTP", "otp_type": "COPY_CODE"}]
        return "authentication", [{"type": "BODY"}, {"type": "BUTTONS", "buttons": buttons}]
    components: list[dict[str, Any]] = []
    if template.header:
        components.append({"type": "HEADER", "format": template.header.type.upper()})
    names = [value.name or str(n) for n, value in enumerate(template.body, start=1)]
    assert all(isinstance(value, CurrencyValue | DateTimeValue) or value.text for value in template.body)
    words = "".join(f"word {{{{{name}}}}} " for name in names)
    components.append({"type": "BODY", "text": f"{words}and so on."})
    if template.offer_expires_at_ms is not None:
        components.append({"type": "LIMITED_TIME_OFFER", "limited_time_offer": {"text": "x", "has_expiration": True}})
    if template.buttons:
        components.append({"type": "BUTTONS", "buttons": _buttons(template.buttons)})
    if template.cards:
        cards = [
            {
                "components": [
                    {"type": "HEADER", "format": card.header.type.upper()} if card.header else {},
                    {"type": "BUTTONS", "buttons": _buttons(card.buttons)},
                ]
            }
            for card in template.cards
        ]
        components.append({"type": "CAROUSEL", "cards": cards})
    return "utility", components


def _buttons(values: tuple[ButtonValue, ...]) -> list[dict[str, Any]]:
    by_index = {value.index: value for value in values}
    return [_button(by_index.get(index)) for index in range(max(by_index) + 1)]


def _button(value: ButtonValue | None) -> dict[str, Any]:
    if value is None:
        return {"type": "PHONE_NUMBER", "text": "Call", "phone_number": "+12025550100"}
    ends = {"url": "https://example.com/{{1}}"} if isinstance(value, UrlValue) else {}
    return {"type": _BUTTONS.get(value.type, value.type.upper()), "text": "x"} | ends
