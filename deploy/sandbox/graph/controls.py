"""What the sandbox shows and takes beside the Graph API: the record of what was accepted, pace, reset, reviews."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from deploy.sandbox.graph import media, reviews
from deploy.sandbox.graph.app import Graph
from deploy.sandbox.graph.errors import Refused
from deploy.sandbox.graph.statuses import Change
from deploy.sandbox.story import Customer
from deploy.sandbox.webhook_body import as_json


class Decision(BaseModel):
    """What `POST /sandbox/graph/templates/{id}` takes."""

    model_config = ConfigDict(extra="forbid")

    event: Literal["APPROVED", "REJECTED", "PAUSED", "DISABLED", "QUALITY", "CATEGORY"]
    reason: str = "INVALID_FORMAT"
    quality: Literal["GREEN", "YELLOW", "RED", "UNKNOWN"] = "YELLOW"
    category: Literal["MARKETING", "UTILITY", "AUTHENTICATION"] = "MARKETING"


class Wrote(BaseModel):
    """What `POST /sandbox/graph/windows` takes: a customer wrote at that time, without a webhook about it."""

    model_config = ConfigDict(extra="forbid")

    phone_number_id: str
    customer: Customer
    at: AwareDatetime | None = None  # null: now


def routes(graph: Graph) -> APIRouter:
    """Serve `/sandbox/accepted` and `/sandbox/graph/*`."""
    router = APIRouter(prefix="/sandbox")
    world, statuses = graph.world, graph.statuses

    @router.get("/accepted")
    async def list_accepted(
        since: AwareDatetime | None = None, after: int = 0, biz_opaque_callback_data: str | None = None
    ) -> Response:
        """List what was accepted: since a time, after an ordinal, or with that callback data; oldest first."""
        moment = since.timestamp() if since else 0.0
        rows = [
            sent.to_json()
            for sent in world.accepted
            if sent.at >= moment and sent.ordinal > after and biz_opaque_callback_data in (None, sent.callback_data)
        ]
        return as_json({"accepted": rows, "total": world.ordinal, "statuses_waiting": statuses.waiting})

    @router.get("/graph/calls")
    async def list_calls() -> dict[str, Any]:
        return {"calls": list(world.calls)}

    @router.get("/graph/read_marks")
    async def list_read_marks() -> dict[str, Any]:
        return {"read_marks": list(world.read_marks)}

    @router.post("/graph/reset", status_code=204)
    async def reset() -> Response:
        statuses.forget()
        graph.analytics.clear()
        world.reset()
        return Response(status_code=204)

    @router.get("/graph/behaviour")
    async def show_behaviour() -> dict[str, Any]:
        return world.behaviour.model_dump()

    @router.put("/graph/behaviour")
    async def change_behaviour(request: Request) -> dict[str, Any]:
        try:
            changes = await request.json()
            world.change_behaviour(changes)
        except (ValidationError, ValueError, TypeError) as error:
            raise HTTPException(422, str(error)) from error
        return world.behaviour.model_dump()

    @router.post("/graph/windows", status_code=204)
    async def open_window(wrote: Wrote) -> Response:
        at = wrote.at.timestamp() if wrote.at else world.clock()
        world.people.wrote(wrote.phone_number_id, world.people.know(wrote.customer), at)
        return Response(status_code=204)

    @router.post("/graph/templates/{template_id}")
    async def decide(template_id: str, decision: Decision) -> dict[str, Any]:
        template = world.templates.by_id.get(template_id)
        if template is None:
            raise HTTPException(404, "no such template")
        now = world.clock()
        change: Change | None
        match decision.event:
            case "APPROVED":
                change = reviews.approve(template)
            case "REJECTED":
                change = reviews.reject(template, now, decision.reason, "Decided by hand.")
            case "PAUSED":
                change = reviews.pause(world, statuses, template, now)
            case "DISABLED":
                change = reviews.disable(template, now)
            case "QUALITY":
                change = reviews.requalify(template, decision.quality, now)
            case "CATEGORY":
                change = reviews.recategorise(template, decision.category)
        statuses.later(0, lambda _: change)
        return template.to_json()

    @router.post("/media", status_code=201)
    async def upload(request: Request, phone_number_id: str, name: str | None = None) -> dict[str, Any]:
        """Keep a file that a customer is about to send; the body is the file."""
        mime_type = request.headers.get("content-type", "application/octet-stream")
        content = await request.body()
        try:
            media.check_file(mime_type, len(content))
        except Refused as refused:
            raise HTTPException(422, refused.details) from refused
        file = world.media.add(phone_number_id, mime_type, content, name, world.clock() + media.RECEIVED_S)
        return {"id": file.id, "mime_type": mime_type, "kind": media.kind_of(mime_type)}

    @router.get("/media/{media_id}")
    async def show_file(media_id: str) -> Response:
        """Serve a file to the phone page, which has no token."""
        file = world.media.find(media_id, world.clock())
        if file is None:
            raise HTTPException(404, "no such file, or it has expired")
        headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}
        return Response(file.content, media_type=file.mime_type, headers=headers)

    return router
