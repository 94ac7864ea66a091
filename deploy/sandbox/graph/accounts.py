"""A WhatsApp Business Account: its numbers, subscribed apps and analytics; and what a token may do."""

from __future__ import annotations

from typing import Any

from deploy.sandbox.graph.analytics import Analytics, account_analytics, template_analytics
from deploy.sandbox.graph.callbacks import check_callback
from deploy.sandbox.graph.errors import Refused
from deploy.sandbox.graph.fields import split_fields
from deploy.sandbox.graph.numbers import LISTED, chosen, facts
from deploy.sandbox.graph.wire import SUCCESS, Answer, Request
from deploy.sandbox.graph.world import Account, World

_ANALYTICS = ("analytics", "conversation_analytics", "pricing_analytics")


def show(world: World, analytics: Analytics, account: Account, request: Request) -> Answer:
    """Answer `GET /<WABA_ID>`: plain fields and analytics expressions."""
    known: dict[str, Any] = {
        "id": account.id,
        "name": account.name,
        "timezone_id": "1",
        "currency": "USD",
        "message_template_namespace": f"{account.id[:8]}_0000_0000_0000_000000000000",
        "account_review_status": "APPROVED",
        "business_verification_status": "verified",
        "is_enabled_for_insights": account.has_insights,
        "ownership_type": "SELF",
        "owner_business_info": {"id": account.portfolio_id, "name": account.name},
    }
    fields = split_fields(request.query.get("fields", ""))
    default = ("name", "timezone_id", "message_template_namespace")
    found: dict[str, Any] = {}
    for field in fields or default:
        name = field.partition(".")[0]
        if name in _ANALYTICS:
            found[name] = account_analytics(world, analytics, account, field)
        elif name in known:
            found[name] = known[name]
        else:
            raise Refused(100, message=f"(#100) Tried accessing nonexisting field ({name[:60]})")
    return Answer(found | {"id": account.id})


def change(world: World, account: Account, request: Request) -> Answer:
    """Answer `POST /<WABA_ID>`: switching template insights on, which cannot be undone."""
    asked = str(request.body().get("is_enabled_for_insights", "")).lower()
    if asked == "true":
        account.has_insights = True
        return Answer({"id": account.id})
    raise Refused(200006) if asked == "false" else Refused(100, "Nothing to change.")


def phone_numbers(world: World, account: Account, request: Request) -> Answer:
    rows = [
        chosen(facts(world, number), request.query.get("fields"), LISTED)
        for number in world.numbers.values()
        if number.waba_id == account.id
    ]
    return Answer({"data": rows, "paging": {"cursors": {"before": "QQ", "after": "Qg"}}} if rows else {"data": []})


def subscribed_apps(world: World, account: Account, request: Request) -> Answer:
    """Answer GET, POST and DELETE: without a subscription nothing of this account reaches our webhook."""
    if request.method == "POST":
        # A POST without a body clears the override.
        account.callback = check_callback(request.body()) or None
        account.is_subscribed = True
        return Answer(SUCCESS)
    if request.method == "DELETE":
        account.is_subscribed = False
        return Answer(SUCCESS)
    app_id = world.story.meta.app_id
    row: dict[str, Any] = {
        "whatsapp_business_api_data": {
            "id": app_id,
            "link": f"https://www.facebook.com/games/?app_id={app_id}",
            "name": world.story.meta.app_name,
        }
    }
    if account.callback:
        row["override_callback_uri"] = account.callback
    return Answer({"data": [row] if account.is_subscribed else []})


def insights(world: World, analytics: Analytics, account: Account, request: Request) -> Answer:
    return Answer(template_analytics(world, analytics, account, request.query))


def debug_token(world: World, request: Request) -> Answer:
    """Answer `GET /debug_token`: what a token may do, and to which accounts."""
    asked = request.query.get("input_token")
    if not asked:
        raise Refused(100, "The parameter input_token is required.")
    token = world.tokens.get(asked)
    meta = world.story.meta
    now = world.clock()
    if token is None or 0 < token.expires_at <= now:
        message = "Invalid OAuth access token." if token is None else "Error validating access token: expired."
        error = {"code": 190, "message": message, "subcode": 467 if token is None else 463}
        return Answer({"data": {"app_id": meta.app_id, "is_valid": False, "error": error, "scopes": []}})
    targets = sorted(world.accounts) if token.accounts is None else token.accounts
    return Answer(
        {
            "data": {
                "app_id": meta.app_id,
                "type": "SYSTEM_USER",
                "application": meta.app_name,
                "data_access_expires_at": 0,
                "expires_at": token.expires_at,
                "is_valid": True,
                "issued_at": int(now) - 86_400,
                "scopes": token.scopes,
                "granular_scopes": [
                    {"scope": scope} | ({"target_ids": targets} if scope.startswith("whatsapp_business_") else {})
                    for scope in token.scopes
                ],
                "user_id": "122100000000001",
            }
        }
    )
