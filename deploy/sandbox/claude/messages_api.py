"""`POST /v1/messages` as Anthropic speaks it, and the record of calls.

Source: Anthropic, "Messages", "Errors" and "Structured outputs", and the types of anthropic 2.12, November 2026.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from deploy.sandbox.claude.answer import CannotAnswer, answer, refs_wanted
from deploy.sandbox.claude.batches_api import batch_routes
from deploy.sandbox.claude.calls import Call, Calls, sha256
from deploy.sandbox.claude.gullible import Obedience, obey
from deploy.sandbox.claude.images import image_problem
from deploy.sandbox.claude.prompt import Prompt, read_prompt
from deploy.sandbox.claude.refused import Refused, invalid
from deploy.sandbox.claude.schema_rules import findings
from deploy.sandbox.claude.template_choice import choose_templates
from deploy.sandbox.claude.understanding import understand
from deploy.sandbox.claude.usage import PromptCache
from deploy.sandbox.faults import ClaudeMode, FaultBoard
from deploy.sandbox.logs import log

LONGEST_SILENCE_S = 120.0  # a timeout fault gives up then, whoever still listens
NONSENSE = ["this", "is", {"not": "what was asked"}, 42]
_KNOWN = {
    *("max_tokens", "messages", "model", "system", "stream", "stop_sequences", "temperature", "top_k", "top_p"),
    *("output_config", "thinking", "tools", "tool_choice", "metadata", "service_tier", "speed", "inference_geo"),
    *("cache_control", "container", "diagnostics"),
}
# mode → (HTTP status, error type, sentence)
_FAILURES = {
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "rate_limited": (429, "rate_limit_error", "This request would exceed your organization's rate limit."),
    "server_error": (500, "api_error", "Internal server error"),
}


def check(request: Any) -> dict[str, Any]:
    """Return the request if the API would take it. Raises: Refused, with the sentence the API would use."""
    if not isinstance(request, dict):
        raise invalid("Input should be an object")
    for name in ("model", "max_tokens", "messages"):
        if name not in request:
            raise invalid(f"{name}: Field required")
    for name in request.keys() - _KNOWN:
        raise invalid(f"{name}: Extra inputs are not permitted")
    if not isinstance(request["model"], str) or not request["model"]:
        raise invalid("model: String should have at least 1 character")
    most = request["max_tokens"]
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise invalid("max_tokens: Input should be greater than or equal to 1")
    turns = request["messages"]
    if not isinstance(turns, list) or not turns:
        raise invalid("messages: at least one message is required")
    for index, turn in enumerate(turns):
        if not isinstance(turn, dict) or turn.get("role") not in ("user", "assistant"):
            raise invalid(f"messages.{index}.role: Input should be 'user' or 'assistant'")
        if not isinstance(turn.get("content"), str | list) or not turn["content"]:
            raise invalid(f"messages.{index}: all messages must have non-empty content")
    if problem := image_problem(turns):
        raise invalid(problem)
    if request.get("stream"):
        raise invalid("stream: the sandbox does not stream; send the request without it")
    if isinstance(choice := request.get("tool_choice"), dict) and choice.get("type") in ("any", "tool"):
        raise invalid("tool_choice: the sandbox calls no tools; ask with output_config.format")
    _check_format(request)
    return request


def _check_format(request: dict[str, Any]) -> None:
    config = request.get("output_config")
    if config is None:
        return
    if not isinstance(config, dict) or config.keys() - {"format", "effort"}:
        raise invalid("output_config: Extra inputs are not permitted")
    wanted = config.get("format")
    if wanted is None:
        return
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        raise invalid("output_config.format.type: Input should be 'json_schema'")
    if not isinstance(wanted.get("schema"), dict):
        raise invalid("output_config.format.schema: Field required")
    if request["messages"][-1]["role"] == "assistant":
        raise invalid("Prefill is not compatible with output_config.format")


def text_of(content: object) -> str:
    """Join the text blocks of a turn."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n".join(str(block["text"]) for block in blocks if isinstance(block, dict) and "text" in block)


def _schema_of(request: dict[str, Any]) -> dict[str, Any] | None:
    wanted = (request.get("output_config") or {}).get("format")
    return wanted["schema"] if wanted else None


def _written(schema: dict[str, Any] | None, prompt: Prompt, mode: ClaudeMode, asked: dict[str, Any]) -> Obedience:
    """Write the answer."""
    if mode == "gullible":
        honest = (
            understand(prompt.inbound_text).reply
            if schema is None
            else choose_templates(answer(schema, prompt), prompt)
        )
        return obey(honest, asked, prompt.text)
    return Obedience(_text_written(schema, prompt, mode))


def _text_written(schema: dict[str, Any] | None, prompt: Prompt, mode: ClaudeMode) -> str:
    if mode == "invalid_json":
        return 'Certainly! Here is the analysis you asked for: {"entries": [{"ref": '
    if mode == "nonsense":
        fits_a_list = schema is not None and schema.get("type") == "array"
        return json.dumps({"nonsense": NONSENSE} if fits_a_list else NONSENSE)
    if schema is not None:
        return json.dumps(choose_templates(answer(schema, prompt), prompt), ensure_ascii=False)
    return understand(prompt.inbound_text).reply


def _cut(text: str, most_tokens: int, mode: ClaudeMode) -> tuple[str, str]:
    """Return what fits, and why it ended."""
    if mode == "truncation":
        return text[: len(text) // 2], "max_tokens"
    if (len(text) + 3) // 4 > most_tokens:
        return text[: most_tokens * 4], "max_tokens"
    return text, "end_turn"


def routes(calls: Calls, board: FaultBoard) -> APIRouter:
    """Serve the Messages API and `/sandbox/claude/calls`."""
    router = APIRouter()
    cache = PromptCache()

    def errored(request_id: str, kind: str, message: str) -> dict[str, Any]:
        error = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
        return {"type": "errored", "error": error}

    def envelope(request_id: str, status: int, kind: str, message: str) -> JSONResponse:
        body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
        headers = {"request-id": request_id}
        if status == 429:
            headers["retry-after"] = "1"
        return JSONResponse(body, status, headers=headers)

    def authorise(request: Request) -> None:
        # The SDK sends its key as a bearer token (seen with 2.12); older ones and curl send x-api-key.
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if not request.headers.get("x-api-key") and not (scheme.lower() == "bearer" and bearer):
            raise Refused(401, "authentication_error", "x-api-key header is required")
        if not request.headers.get("anthropic-version"):
            raise invalid("anthropic-version: header is required")

    async def body(request: Request) -> Any:
        authorise(request)
        try:
            return json.loads(await request.body())
        except ValueError as error:
            raise invalid(f"The request body is not valid JSON: {error}") from error

    def read(wanted: Any, call: Call) -> tuple[dict[str, Any], dict[str, Any] | None, Prompt]:
        """Take a request apart, writing down what the record keeps. Raises: Refused."""
        asked = check(wanted)
        call.model = asked["model"]
        schema = _schema_of(asked)
        user_text = text_of(next(turn["content"] for turn in reversed(asked["messages"]) if turn["role"] == "user"))
        prompt = read_prompt(user_text, refs_wanted(schema) if schema else frozenset())
        call.refs = tuple(message.ref for message in prompt.to_analyse)
        call.user_text_sha256 = sha256(user_text)
        call.text_sha256s = tuple(sha256(message.text) for message in prompt.to_analyse)
        if board.record_prompts:
            call.prompt = asked
        if schema is not None:
            call.answer_fields = tuple(schema.get("properties") or ())
            call.schema_findings = findings(schema)
            if board.now.strict_schema and call.schema_findings:
                raise invalid(f"output_config.format.schema: {call.schema_findings[0]}")
        return asked, schema, prompt

    async def wait(request: Request, seconds: float) -> bool:
        """Wait, or until the client hangs up; True when it has gone."""
        try:
            async with asyncio.timeout(seconds):
                while (await request.receive())["type"] != "http.disconnect":
                    pass
            return True
        except TimeoutError:
            return False

    def compose(
        asked: dict[str, Any], schema: dict[str, Any] | None, prompt: Prompt, mode: ClaudeMode, call: Call
    ) -> tuple[str, dict[str, Any]]:
        """Produce (outcome for the record, message). Raises: Refused."""
        try:
            written = _written(schema, prompt, mode, asked)
            text, stop_reason = _cut(written.text, asked["max_tokens"], mode)
        except CannotAnswer as error:
            raise invalid(f"output_config.format.schema: {error}") from error
        content = [{"type": "text", "text": text, "citations": None}, *written.blocks]
        call.obeyed = tuple(dict.fromkeys(written.obeyed))
        if board.record_prompts:
            call.answer = text
        details = None
        if mode == "refusal":
            text, stop_reason, content = "", "refusal", []
            details = {"type": "refusal", "category": None, "explanation": None}
        call.usage = cache.usage(asked, text)
        message = {
            "id": f"msg_01{secrets.token_hex(11)}",
            "type": "message",
            "role": "assistant",
            "model": asked["model"],
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "stop_details": details,
            "usage": call.usage,
        }
        outcome = mode if mode not in ("none", "slow") else ("answered" if stop_reason == "end_turn" else stop_reason)
        return outcome, message

    async def respond(request: Request, call: Call) -> tuple[str, Response]:
        """Produce (outcome for the record, answer). Raises: Refused."""
        asked, schema, prompt = read(await body(request), call)
        mode, latency_ms = take_mode(prompt)
        if mode == "timeout":
            await wait(request, LONGEST_SILENCE_S)
            return "timeout", envelope(call.id, 504, "timeout_error", "The sandbox was told not to answer")
        if await wait(request, latency_ms / 1000):
            return "client_gone", Response(status_code=499)
        if mode in _FAILURES:
            return mode, envelope(call.id, *_FAILURES[mode])
        outcome, message = compose(asked, schema, prompt, mode, call)
        return outcome, JSONResponse(message, headers={"request-id": call.id})

    def take_mode(prompt: Prompt) -> tuple[ClaudeMode, int]:
        return board.take_claude_mode([prompt.text, *(message.text for message in prompt.to_analyse)])

    def result_of(wanted: Any, call: Call) -> tuple[str, dict[str, Any]]:
        """Produce (outcome for the record, result) of one request of a batch."""
        try:
            asked, schema, prompt = read(wanted, call)
            mode, _ = take_mode(prompt)
            if mode == "timeout":
                return "expired", {"type": "expired"}
            if mode in _FAILURES:
                _, kind, text = _FAILURES[mode]
                return mode, errored(call.id, kind, text)
            outcome, message = compose(asked, schema, prompt, mode, call)
            return outcome, {"type": "succeeded", "message": message}
        except Refused as refused:
            return refused.kind, errored(call.id, refused.kind, refused.message)

    def answer_request(wanted: Any) -> dict[str, Any]:
        call = Call(id=f"req_01{secrets.token_hex(11)}", in_batch=True)
        calls.begin(call)
        outcome, result = result_of(wanted, call)
        calls.end(call, outcome)
        return result

    router.include_router(batch_routes(answer_request, body, authorise, lambda: board.now.batches, envelope))

    @router.post("/v1/messages")
    async def create_message(request: Request) -> Response:
        call = Call(id=f"req_01{secrets.token_hex(11)}")
        calls.begin(call)
        outcome = "cut_off"
        try:
            outcome, response = await respond(request, call)
            return response
        except Refused as refused:
            outcome = refused.kind
            return envelope(call.id, refused.status, refused.kind, refused.message)
        finally:
            calls.end(call, outcome)
            log("claude.asked", request_id=call.id, model=call.model, outcome=outcome, refs_seen=len(call.refs))

    @router.get("/sandbox/claude/calls")
    async def list_calls() -> dict[str, object]:
        return calls.to_json()

    @router.delete("/sandbox/claude/calls", status_code=204)
    async def clear_calls() -> None:
        calls.clear()

    return router
