"""The way in: takes a request under /graph apart, checks its token, finds its noun, and answers or breaks as told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx

from deploy.sandbox.faults import FaultBoard, GraphFault
from deploy.sandbox.graph import accounts, blocks, callbacks, media, messages, numbers, templates
from deploy.sandbox.graph.analytics import Analytics
from deploy.sandbox.graph.errors import (
    Refused,
    expired_token,
    missing_token,
    no_such_object,
    unknown_path,
    unreadable_token,
)
from deploy.sandbox.graph.statuses import Statuses
from deploy.sandbox.graph.wire import (
    Answer,
    Receive,
    Request,
    Scope,
    Send,
    answer_with,
    cut_connection,
    multipart,
    read_all,
)
from deploy.sandbox.graph.world import Account, Number, Sent, World, may_touch
from deploy.sandbox.story import Token

OLDEST, NEWEST = 21, 26
MOST_BODY_BYTES = media.LARGEST + 1024 * 1024
MESSAGING, MANAGEMENT = "whatsapp_business_messaging", "whatsapp_business_management"
_HTML = b"<html><body>Sorry, something went wrong.</body></html>"
HANG_S = 3_600

NumberVerb = Callable[[World, Number, Request], Answer]
_NUMBER: dict[tuple[str, str], tuple[str, NumberVerb]] = {
    ("POST", "media"): (MESSAGING, media.upload),
    ("GET", ""): (MANAGEMENT, numbers.show),
    ("POST", ""): (MANAGEMENT, numbers.change),
    ("POST", "register"): (MANAGEMENT, numbers.register),
    ("POST", "deregister"): (MANAGEMENT, numbers.deregister),
    **{(method, "username"): (MANAGEMENT, numbers.username) for method in ("GET", "POST", "DELETE")},
    **{(method, "block_users"): (MESSAGING, blocks.block_users) for method in ("GET", "POST", "DELETE")},
}


class Graph:
    """The Graph API as one ASGI application."""

    def __init__(
        self,
        world: World,
        statuses: Statuses,
        analytics: Analytics,
        board: FaultBoard,
        *,
        client: httpx.AsyncClient,
        webhook_url: str,
    ) -> None:
        self.world = world
        self.statuses = statuses
        self.analytics = analytics
        self._board = board
        self._client = client
        self._webhook_url = webhook_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = self.world.clock()
        path = str(scope["path"]).removeprefix("/graph").strip("/")
        parts = [unquote(part) for part in path.split("/")]
        query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))
        raw = await read_all(receive, MOST_BODY_BYTES)
        version, parts = self._version(parts)
        request = Request(
            scope["method"],
            version,
            parts,
            query,
            dict(scope["headers"]),
            raw or b"",
            Token(token="-"),
            self.world.base_url,
        )
        if raw is None:
            answer, fault = Answer(Refused(100, "The request body is too large.").body(), 413), None
        else:
            faulty = bool(self._board.now.graph)  # rarely: then the body is read twice
            fault = self._board.take_graph_fault(path, _recipient_of(request)) if faulty else None
            if fault is not None and fault.latency_ms:
                await asyncio.sleep(fault.latency_ms / 1000)
            answer = (
                self._broken(fault) or await callbacks.unverified(request, self._client) or self._answer(request, fault)
            )
        self._note(request, answer, fault, started)
        if fault is None or fault.mode in ("slow", "error", "html", "empty"):
            await answer_with(send, answer, version)
        elif fault.mode == "hang":
            await _until_gone(receive)
        else:
            cut_connection(send)
            await _until_gone(receive)

    def _broken(self, fault: GraphFault | None) -> Answer | None:
        """Return the answer of a fault that keeps the request from being looked at."""
        if fault is None or fault.mode == "slow" or fault.mode == "reply_lost":
            return None
        if fault.mode == "error":
            if fault.by == "webhook":
                return None
            refused = Refused(fault.code, fault.details, http=fault.http)
            return Answer(refused.body(), refused.http)
        if fault.mode == "html":
            return Answer(_HTML, fault.http or 502, "text/html")
        return Answer(b"", fault.http or 500)

    def _answer(self, request: Request, fault: GraphFault | None) -> Answer:
        try:
            answer, sent = self._dispatch(request, fault)
        except Refused as refused:
            return Answer(refused.body(), refused.http)
        if sent is not None and fault is not None and fault.mode == "reply_lost":
            sent.reply_lost = True
        return answer

    @staticmethod
    def _version(parts: list[str]) -> tuple[str, list[str]]:
        """Split off the version. One that has expired, or none, is served as the oldest that is alive.

        Source: Meta, "Platform Versioning": calls to a version no longer usable default to the next oldest, usable one.
        """
        first = parts[0]
        if first[:1] == "v" and first[1:].replace(".", "", 1).isdigit():
            major = int(first[1:].partition(".")[0])
            return (f"v{max(major, OLDEST)}.0" if major <= NEWEST else "", parts[1:] or [""])
        return f"v{OLDEST}.0", parts

    def _dispatch(self, request: Request, fault: GraphFault | None) -> tuple[Answer, Sent | None]:
        if not request.version:
            raise unknown_path("/" + "/".join(request.parts))
        world, parts = self.world, request.parts
        if parts[:2] == ["whatsapp_business", "attachments"]:
            return self._download(request), None
        request.token = self._token(request)
        node = parts[0]
        number = world.numbers.get(node)
        if number is not None:
            return self._number(number, request, fault)
        if node in world.accounts:
            return self._account(world.accounts[node], request), None
        return self._other(node, request), None

    def _token(self, request: Request) -> Token:
        scheme, _, value = request.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() not in ("bearer", "oauth") or not value:
            value = request.query.get("access_token", "")
        if not value:
            raise missing_token()
        token = self.world.tokens.get(value.strip())
        if token is None:
            raise unreadable_token()
        if 0 < token.expires_at <= self.world.clock():
            raise expired_token()
        return token

    def _allow(self, token: Token, waba_id: str, scope: str) -> None:
        if not may_touch(token, waba_id):
            raise Refused(200)
        if scope not in token.scopes:
            raise Refused(10)

    def _count_call(self, waba_id: str) -> None:
        most = self.world.behaviour.management_calls_per_hour
        if not self.world.management_calls.take(waba_id, most, self.world.clock()):
            raise Refused(80007)

    def _number(self, number: Number, request: Request, fault: GraphFault | None) -> tuple[Answer, Sent | None]:
        edge = request.edge
        if request.method == "POST" and edge in ("messages", "marketing_messages"):
            self._allow(request.token, number.waba_id, MESSAGING)
            late = Refused(fault.code, fault.details) if fault is not None and fault.by == "webhook" else None
            return messages.messages(self.world, self.statuses, number, request, late)
        found = _NUMBER.get((request.method, edge))
        if found is None:
            raise unknown_path(f"/{edge}")
        scope, verb = found
        self._allow(request.token, number.waba_id, scope)
        if scope == MANAGEMENT:
            self._count_call(number.waba_id)
        return verb(self.world, number, request), None

    def _account(self, account: Account, request: Request) -> Answer:
        self._allow(request.token, account.id, MANAGEMENT)
        self._count_call(account.id)
        world, method, edge = self.world, request.method, request.edge
        if edge == "message_templates":
            return templates.collection(world, self.statuses, account, request)
        if edge == "" and method == "GET":
            return accounts.show(world, self.analytics, account, request)
        if edge == "" and method == "POST":
            return accounts.change(world, account, request)
        if edge == "phone_numbers" and method == "GET":
            return accounts.phone_numbers(world, account, request)
        if edge == "subscribed_apps":
            return accounts.subscribed_apps(world, account, request)
        if edge == "template_analytics" and method == "GET":
            return accounts.insights(world, self.analytics, account, request)
        raise unknown_path(f"/{edge}")

    def _other(self, node: str, request: Request) -> Answer:
        world = self.world
        template = world.templates.by_id.get(node)
        if template is not None:
            self._allow(request.token, template.waba_id, MANAGEMENT)
            self._count_call(template.waba_id)
            return templates.one(world, self.statuses, template, request)
        file = world.media.find(node, world.clock())
        if file is not None:
            owner = world.numbers.get(file.phone_number_id)
            self._allow(request.token, owner.waba_id if owner else "", MESSAGING)
            return media.delete(world, file) if request.method == "DELETE" else media.show(world, file, request)
        if node == "debug_token":
            return accounts.debug_token(world, request)
        if node == "me":
            return Answer({"name": "System user", "id": "122100000000001"})
        if node in (world.story.meta.app_id, "app"):
            if request.edge == "uploads" and request.method == "POST":
                return media.start_sample(world, request)
            if request.edge == "subscriptions":
                return callbacks.subscriptions(self._webhook_url, request)
            return Answer({"id": world.story.meta.app_id, "name": world.story.meta.app_name})
        if node.startswith("upload:"):
            return media.sample(world, node, request)
        raise no_such_object(node)

    def _download(self, request: Request) -> Answer:
        try:
            self._token(request)
        except Refused as refused:
            return Answer(refused.body(), 401)
        return media.download(self.world, request.query)

    def _note(self, request: Request, answer: Answer, fault: GraphFault | None, started: float) -> None:
        code = None
        if answer.status != 200 and isinstance(answer.body, dict):
            code = answer.body["error"]["code"]
        call = {
            "at": started,
            "method": request.method,
            "path": "/".join(request.parts),
            "status": answer.status,
            "code": code,
            "fault": None if fault is None else fault.mode,
            "ms": round((self.world.clock() - started) * 1000, 2),
        }
        if self.world.behaviour.keep_bodies:
            call |= {"query": request.query, "request": _said(request), "answer": _shown(answer)}
        self.world.calls.append(call)


def _said(request: Request) -> Any:
    """Return a request's body as the record keeps it: JSON as it came, a form's files by type and size."""
    if request.content_type.startswith("multipart/"):
        return {
            name: part.content.decode("utf-8", "replace")
            if part.filename is None
            else {"filename": part.filename, "content_type": part.content_type, "size": len(part.content)}
            for name, part in multipart(request).items()
        }
    try:
        return json.loads(request.raw) if request.raw else None
    except ValueError:
        return {"content_type": request.content_type, "size": len(request.raw)}


def _shown(answer: Answer) -> Any:
    body = answer.body
    return {"content_type": answer.content_type, "size": len(body)} if isinstance(body, bytes) else body


def _recipient_of(request: Request) -> str:
    """Return who a message is for, as the request calls them; empty for everything else."""
    if request.content_type.startswith("multipart/"):
        return ",".join(sorted(multipart(request)))
    try:
        body: Any = request.body()
    except Refused:
        return ""
    return f"{body.get('to', '')} {body.get('recipient', '')}".strip()


async def _until_gone(receive: Receive) -> None:
    """Wait until the client has hung up."""
    try:
        async with asyncio.timeout(HANG_S):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        pass
