"""Templates: create, list, read, edit, delete, unpause.

Source: Meta, templates/template-management, read 2026-11-22.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from deploy.sandbox.graph.errors import Refused
from deploy.sandbox.graph.fields import field_names
from deploy.sandbox.graph.reviews import review, told, unpause
from deploy.sandbox.graph.template_rules import check_components, check_template, wrong
from deploy.sandbox.graph.template_store import DAY_S, Template
from deploy.sandbox.graph.wire import SUCCESS, Answer, Request
from deploy.sandbox.graph.world import Account, World

if TYPE_CHECKING:
    from deploy.sandbox.graph.statuses import Statuses

# Words in the name of a utility template that Meta's automatic check takes for advertising.
_SOUNDS_LIKE_MARKETING = ("sale", "promo", "offer", "discount")
MOST_PER_PAGE = 1_000


def collection(world: World, statuses: Statuses, account: Account, request: Request) -> Answer:
    """Answer GET, POST and DELETE of `/<WABA_ID>/message_templates`."""
    if request.method == "GET":
        return _list(world, account, request)
    if request.method == "DELETE":
        return _delete(world, statuses, account, request)
    return _create(world, statuses, account, request)


def _create(world: World, statuses: Statuses, account: Account, request: Request) -> Answer:
    asked = request.body()
    now = world.clock()
    if isinstance(asked.get("components"), str):
        try:
            asked["components"] = json.loads(asked["components"])
        except ValueError as error:
            raise Refused(100, "Param components must be an array of objects.") from error
    if not world.template_creates.take(account.id, world.behaviour.template_creates_per_hour, now):
        raise Refused(80007)
    existing = world.templates.of_account(account.id)
    if len(existing) >= world.behaviour.most_templates:
        raise wrong("Message template limit exceeded", "The account has reached its template limit.", 2388019)
    if world.templates.find(account.id, str(asked.get("name")), str(asked.get("language"))) is not None:
        raise wrong(
            "Content in this language already exists", "There is already content for this name and language.", 2388024
        )
    check_template(asked)
    if world.templates.names_blocked_until.get((account.id, asked["name"]), 0) > now:
        raise wrong("Name not available", "An approved template of this name was deleted in the last 30 days.")
    category = asked["category"]
    if category == "UTILITY" and any(word in asked["name"] for word in _SOUNDS_LIKE_MARKETING):
        category = "MARKETING"
    template = Template(
        world.templates.new_id(),
        account.id,
        asked["name"],
        asked["language"],
        category,
        "PENDING",
        asked.get("parameter_format", "POSITIONAL"),
        asked["components"],
        created_at=now,
        quality_at=now,
        ttl_s=asked.get("message_send_ttl_seconds"),
    )
    world.templates.add(template)
    review(world, statuses, template)
    return Answer({"id": template.id, "status": template.status, "category": template.category})


def _list(world: World, account: Account, request: Request) -> Answer:
    query = request.query
    rows = [one for one in world.templates.of_account(account.id) if _matches(one, query)]
    start = _cursor_at(query["after"]) if query.get("after") else 0
    limit = int(query["limit"]) if query.get("limit", "").isdigit() and int(query["limit"]) > 0 else 25
    limit = min(limit, MOST_PER_PAGE)
    page = rows[start : start + limit]
    if not page:
        return Answer({"data": []})
    end = start + len(page)
    paging: dict[str, Any] = {"cursors": {"before": _cursor(start), "after": _cursor(end)}}
    if end < len(rows):
        asked = "".join(f"&{name}={value}" for name, value in query.items() if name not in ("after", "limit"))
        path = f"{request.version}/{account.id}/message_templates"
        paging["next"] = f"{world.base_url}/graph/{path}?limit={limit}&after={_cursor(end)}{asked}"
    return Answer({"data": [_fields(one, query.get("fields")) for one in page], "paging": paging})


def _matches(template: Template, query: dict[str, str]) -> bool:
    for name in ("status", "language", "category"):
        wanted = query.get(name)
        if wanted and getattr(template, name).upper() not in [one.strip(' "[]').upper() for one in wanted.split(",")]:
            return False
    # Meta finds templates by a part of their name, too.
    return query.get("name", "") in template.name


def _fields(template: Template, fields: str | None) -> dict[str, Any]:
    found = template.to_json()
    if not fields:
        return found
    # Fields without a value are left out, as Meta does.
    return {name: found[name] for name in field_names(fields) if name in found} | {"id": template.id}


def _cursor(at: int) -> str:
    return base64.urlsafe_b64encode(f"TPL{at:06d}".encode()).decode()


def _cursor_at(cursor: str) -> int:
    try:
        text = base64.b64decode(cursor, altchars=b"-_", validate=True).decode("ascii")
    except ValueError as error:
        raise Refused(131059) from error
    if not text.startswith("TPL") or not text[3:].isdigit():
        raise Refused(131059)
    return int(text[3:])


def _delete(world: World, statuses: Statuses, account: Account, request: Request) -> Answer:
    asked = request.body()
    name, template_id = asked.get("name"), asked.get("hsm_id")
    if not name:
        raise Refused(100, "The parameter name is required.")
    found = [
        one
        for one in world.templates.of_account(account.id)
        if one.name == name and (template_id is None or one.id == str(template_id))
    ]
    if not found:
        raise wrong("Template not found", "No template of this account has that name.")
    if any(one.status == "DISABLED" for one in found):
        raise wrong("Template cannot be deleted", "A disabled template cannot be deleted.")
    for one in found:
        if one.status == "APPROVED":
            world.templates.names_blocked_until[(account.id, one.name)] = world.clock() + 30 * DAY_S
        world.templates.remove(one)
        one.status = "DELETED"
        change = told(one, "DELETED")
        statuses.later(0, lambda _, change=change: change)  # type: ignore[misc]
    return Answer(SUCCESS)


def one(world: World, statuses: Statuses, template: Template, request: Request) -> Answer:
    """Answer GET and POST of `/<TEMPLATE_ID>`, and `/<TEMPLATE_ID>/unpause`."""
    if request.method == "GET":
        return Answer(_fields(template, request.query.get("fields")))
    if request.edge == "unpause":
        if template.status != "PAUSED":
            raise Refused(100, "Only a paused template can be unpaused.")
        change = unpause(template)
        statuses.later(0, lambda _: change)
        return Answer(SUCCESS)
    return _edit(world, statuses, template, request)


def _edit(world: World, statuses: Statuses, template: Template, request: Request) -> Answer:
    asked = request.body()
    now = world.clock()
    if template.status not in ("APPROVED", "REJECTED", "PAUSED"):
        raise wrong("Template cannot be edited", "Only approved, rejected and paused templates can be edited.")
    category = asked.get("category", template.category)
    if category not in ("MARKETING", "UTILITY", "AUTHENTICATION"):
        raise Refused(100, "Param category must be one of {AUTHENTICATION, MARKETING, UTILITY}.")
    components = asked.get("components", template.components)
    check_components(components, category, template.parameter_format)
    if template.status == "APPROVED":
        if category != template.category:
            raise wrong("Category cannot be edited", "The category of an approved template is fixed.")
        template.edited_at = [at for at in template.edited_at if now - at < 30 * DAY_S]
        if len(template.edited_at) >= 10 or (template.edited_at and now - template.edited_at[-1] < DAY_S):
            raise wrong("Too many edits", "An approved template is edited once in 24 hours, 10 times in 30 days.")
        template.edited_at.append(now)
    template.components = components
    template.category = category
    template.ttl_s = asked.get("message_send_ttl_seconds", template.ttl_s)
    template.version += 1
    template.status = "PENDING"
    review(world, statuses, template)
    return Answer(SUCCESS)
