"""Judge what the sandbox recorded (behaviour `keep_bodies`): a call's request and its answer."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tests.contract.meta_openapi.document import contract

NUMBER, ACCOUNT = "/{Version}/{Phone-Number-ID}", "/{Version}/{WABA-ID}"
# What an answer must hold by the file, and does not when `fields` asks for other things (Graph's rule for every node).
UNLESS_FIELDS_SAY_OTHERWISE: dict[str, dict[str, Any]] = {ACCOUNT: {"name": "Casa Verde"}}
MEDIA, TEMPLATE = "/{Version}/{Media-ID}", "/{Version}/{TEMPLATE_ID}"


def path_of(call: dict[str, Any], *, numbers: Collection[str], accounts: Collection[str]) -> str | None:
    """Return a call's path as Meta's file writes it; None for what it does not describe: uploads of samples, files."""
    node, _, edge = call["path"].partition("/")
    if node in numbers or node in accounts:
        return (NUMBER if node in numbers else ACCOUNT) + (f"/{edge}" if edge else "")
    if not node.isdigit():
        return None
    is_media = {"mime_type", "sha256"} & set(call["answer"]) or call["method"] == "DELETE"
    return MEDIA if is_media else TEMPLATE


def judged(call: dict[str, Any], path: str) -> list[str]:
    """Return what Meta's file says against a call, request and answer."""
    method, body, found = call["method"].lower(), call["request"], []
    if body is not None:
        media = "multipart/form-data" if "file" in body else "application/json"
        found.append(contract().request(path, _as_a_form(body) if "file" in body else body, method=method, media=media))
    if call["status"] == 200:
        asked_for = call["query"].get("fields", "").split(",")
        spared = UNLESS_FIELDS_SAY_OTHERWISE.get(path, {}).items() if asked_for != [""] else ()
        answer = {name: value for name, value in spared if name not in asked_for} | call["answer"]
        found.append(contract().response(path, answer, method=method, status=200))
    else:
        found.append(contract().schema("GraphAPIError", call["answer"]))
    return [f"{call['method']} {path}: {problem}" for problem in found if problem is not None]


def _as_a_form(body: dict[str, Any]) -> dict[str, Any]:
    """Return a form with its file as the binary string that the file's schema asks for."""
    return body | {"file": body["file"]["filename"]}
