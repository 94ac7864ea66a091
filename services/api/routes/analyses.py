"""What people say about what Claude said: corrections, what became of suggestions, what a voice note says."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime

from services.api.analysis_shapes import Acceptance, Correction, SuggestionOutcome, Transcript
from services.api.person import SignedIn
from services.api.shapes import Message, Problem
from shared.domain.ids import new_id
from shared.store.corrections import Corrections

router = APIRouter(prefix="/api/whatsapp/messages", tags=["analyses"])
figures = APIRouter(prefix="/api/workspace", tags=["analyses"])

WorkspaceId = Annotated[UUID, Query(description="One of `workspaces[].id` of GET /api/me")]

_REFUSALS: dict[int | str, dict[str, Any]] = {
    403: {"model": Problem, "description": "Viewers only read"},
    409: {"model": Problem, "description": "Its state forbids it; the hint says why"},
}
_MANAGED: dict[int | str, dict[str, Any]] = {403: {"model": Problem, "description": "Only owners and admins see them"}}


def corrections_of(request: Request) -> Corrections:
    """Return the store of this process."""
    corrections: Corrections = request.app.state.corrections
    return corrections


CorrectionsDependency = Annotated[Corrections, Depends(corrections_of)]


@router.post(
    "/{message_id}/analysis",
    response_model=Message,
    summary="Correct what Claude said about a message",
    responses=_REFUSALS,
)
async def correct_analysis(
    message_id: UUID,
    correction: Correction,
    workspace_id: WorkspaceId,
    person: SignedIn,
    corrections: CorrectionsDependency,
) -> Response:
    """Set the fields given, now and against whatever Claude says later about this wording; the others stay Claude's.

    `analysis.fields` goes on to show what Claude said, `analysis.corrections` who said what instead.
    """
    fields = correction.model_dump(exclude_unset=True)
    message = await corrections.correct(workspace_id, message_id, new_id=new_id(), fields=fields, as_user=person)
    return Response(message, media_type="application/json")


@router.post(
    "/{message_id}/analysis/undo", response_model=Message, summary="Take a correction back", responses=_REFUSALS
)
async def undo_correction(
    message_id: UUID,
    workspace_id: WorkspaceId,
    person: SignedIn,
    corrections: CorrectionsDependency,
    correction_id: Annotated[
        UUID | None, Query(description="Of `analysis.corrections`; without it, the latest that holds")
    ] = None,
) -> Response:
    """Let hold again what was said before; one that was undone already stays so."""
    message = await corrections.undo(workspace_id, message_id, correction_id=correction_id, as_user=person)
    return Response(message, media_type="application/json")


@router.post(
    "/{message_id}/suggestion",
    response_model=Message,
    summary="Say what became of a suggested response",
    responses=_REFUSALS,
)
async def rate_suggestion(
    message_id: UUID,
    said: SuggestionOutcome,
    workspace_id: WorkspaceId,
    person: SignedIn,
    corrections: CorrectionsDependency,
) -> Response:
    """Rate by hand. Not needed for a reply that names it (`suggestion_id` of POST /api/whatsapp/send)."""
    message = await corrections.rate_suggestion(workspace_id, message_id, outcome=said.outcome, as_user=person)
    return Response(message, media_type="application/json")


@router.put(
    "/{message_id}/transcript", response_model=Message, summary="Write down what a voice note says", responses=_REFUSALS
)
async def set_transcript(
    message_id: UUID,
    said: Transcript,
    workspace_id: WorkspaceId,
    person: SignedIn,
    corrections: CorrectionsDependency,
) -> Response:
    """Keep a transcript, made by whom or what you like; the message is then analysed by it."""
    message = await corrections.set_transcript(workspace_id, message_id, transcript=said.text, as_user=person)
    return Response(message, media_type="application/json")


@figures.get(
    "/suggestion-acceptance",
    response_model=Acceptance,
    summary="How often suggested responses are accepted",
    responses=_MANAGED,
)
async def read_acceptance(
    workspace_id: WorkspaceId,
    person: SignedIn,
    corrections: CorrectionsDependency,
    made_from: Annotated[AwareDatetime, Query(alias="from", description="Of suggestions made from then on")],
    made_before: Annotated[AwareDatetime, Query(alias="to", description="until before then; at most 366 days")],
) -> Response:
    """Return the figures by intent and prompt version."""
    page = await corrections.acceptance(workspace_id, made_from=made_from, made_before=made_before, as_user=person)
    return Response(page, media_type="application/json")
