"""Meta's review of templates, decided by their names, and what it announces by webhook.

A name that holds one of these words gets that fate; any other is approved. `POST /sandbox/graph/templates/{id}`
decides by hand.
Source: Meta, webhooks/reference/message_template_status_update and templates/template-pausing, read 2026-11-22.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy.sandbox.graph.statuses import Change
from deploy.sandbox.graph.template_store import Template
from deploy.sandbox.graph.world import World

if TYPE_CHECKING:
    from deploy.sandbox.graph.statuses import Statuses

# word in the name → reason of the rejection, what Meta says about it
REJECTIONS = {
    "reject_scam": ("SCAM", "The content looks like a scam."),
    "reject_abuse": ("ABUSIVE_CONTENT", "The content is abusive."),
    "reject_promo": ("PROMOTIONAL", "A utility template holds promotional content."),
    "reject_category": ("INCORRECT_CATEGORY", "The category does not fit the content."),
    "reject": ("INVALID_FORMAT", "The format of the template is not acceptable."),
}
PAUSE_HOURS = (3, 6)


def review(world: World, statuses: Statuses, template: Template) -> None:
    """Decide on a template after a while."""
    if "pending" in template.name:
        return
    version = template.version

    def decide(now: float) -> Change | None:
        if template.version != version or template.id not in world.templates.by_id:
            return None
        rejection = next((why for word, why in REJECTIONS.items() if word in template.name), None)
        if rejection is not None:
            return reject(template, now, *rejection)
        if "pause" in template.name:
            statuses.later(world.behaviour.pause_ms, lambda at: pause(world, statuses, template, at))
        elif "disable" in template.name:
            statuses.later(world.behaviour.pause_ms, lambda at: disable(template, at))
        elif "recategor" in template.name and template.category == "UTILITY":
            statuses.later(world.behaviour.pause_ms, lambda at: recategorise(template, "MARKETING"))
        return approve(template)

    statuses.later(world.behaviour.review_ms, decide)


def told(template: Template, event: str, reason: str | None = "NONE", **more: Any) -> Change:
    """Build `message_template_status_update`."""
    value: dict[str, Any] = {
        "event": event,
        "message_template_id": int(template.id),
        "message_template_name": template.name,
        "message_template_language": template.language,
        "reason": reason,
        "message_template_category": template.category,
    }
    return Change(template.waba_id, "message_template_status_update", value | more)


def approve(template: Template) -> Change:
    template.status = "APPROVED"
    template.rejected_reason = "NONE"
    return told(template, "APPROVED")


def reject(template: Template, _: float, reason: str, why: str) -> Change:
    template.status = "REJECTED"
    template.rejected_reason = reason
    info = {"reason": why, "recommendation": "Change the template and submit it again."}
    return told(template, "REJECTED", reason, rejection_info=info)


def pause(world: World, statuses: Statuses, template: Template, now: float) -> Change | None:
    """Pause it for low quality; the third time it is disabled instead."""
    if template.status != "APPROVED":
        return None
    if template.pauses >= len(PAUSE_HOURS):
        return disable(template, now)
    if template.quality != "RED":
        statuses.later(0, lambda at: requalify(template, "RED", at))
    hours = PAUSE_HOURS[template.pauses]
    template.pauses += 1
    template.status = "PAUSED"
    title = ("FIRST_PAUSE", "SECOND_PAUSE")[template.pauses - 1]
    info = {"title": title, "description": f"Paused for {hours} hours because of low quality."}
    return told(template, "PAUSED", None, other_info=info)


def unpause(template: Template) -> Change:
    template.status = "APPROVED"
    info = {"title": "UNPAUSED", "description": "The template can be sent again."}
    return told(template, "APPROVED", None, other_info=info)


def disable(template: Template, now: float) -> Change:
    template.status = "DISABLED"
    info = {"title": "DISABLED", "description": "Third quality failure."}
    return told(template, "DISABLED", None, disable_info={"disable_date": int(now)}, other_info=info)


def requalify(template: Template, score: str, now: float) -> Change:
    """Change the quality and build `message_template_quality_update`."""
    previous, template.quality, template.quality_at = template.quality, score, now
    value = {
        "previous_quality_score": previous,
        "new_quality_score": score,
        "message_template_id": int(template.id),
        "message_template_name": template.name,
        "message_template_language": template.language,
    }
    return Change(template.waba_id, "message_template_quality_update", value)


def recategorise(template: Template, category: str) -> Change:
    """Change the category at once and build `template_category_update`."""
    template.previous_category, template.category = template.category, category
    value = {
        "message_template_id": int(template.id),
        "message_template_name": template.name,
        "message_template_language": template.language,
        "previous_category": template.previous_category,
        "new_category": category,
    }
    return Change(template.waba_id, "template_category_update", value)
