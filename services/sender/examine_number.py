"""The doctor's look at one number: its token, what Meta says of it, whether its webhooks come to us."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from services.sender.check_channel import NUMBER_FIELDS, belonging, findings
from services.sender.diagnosis import Check, Diagnosis
from services.sender.graph import Graph
from services.sender.seal import TokenOpener
from shared.domain.errors import Rejected
from shared.store.channels import TokenedChannel
from shared.whatsapp.errors import Kind, classify
from shared.whatsapp.wire import Json, elements, identifier, mapping, text

NEEDED_SCOPES = ("whatsapp_business_messaging", "whatsapp_business_management")
_RENEW = (
    "Make a system user's token with whatsapp_business_messaging and whatsapp_business_management in Meta's business "
    "settings, and set it: POST /api/whatsapp/channels with the same two ids."
)
_EXPIRES_SOON = timedelta(days=7)
_FIXES = {
    "auth": _RENEW,
    "permission": "Give the system user the account, with full control, in Meta's business settings.",
    "invalid_request": "Compare both ids with Meta's API setup page, and connect the number anew if they differ.",
    "not_reached": "See whether this machine reaches WHATSAPP_GRAPH_URL: DNS, firewall, proxy.",
}


class _Unreadable(Exception):
    """Meta did not show something; the check is noted."""


async def examine_number(
    channel: TokenedChannel, *, graph: Graph, opener: TokenOpener, webhook_url: str | None, now: datetime
) -> list[Check]:
    """Return what was found; where the token is no use, the rest is not looked at."""
    found = Diagnosis(channel.phone_number_id, channel.workspace)
    _look_at_state(channel, found)
    if channel.token_sealed is None:
        found.warn("token", "The number has no token: it receives, and cannot send.", _RENEW)
        return found.checks
    try:
        token = opener.open(channel.token_sealed, channel.key_id or "")
    except Rejected as error:
        found.fail("token", f"{str(error)[:1].upper()}{str(error)[1:]}.", error.hint or _RENEW)
        return found.checks
    patient = _Patient(graph, token, found)
    try:
        app_id = await _look_at_token(channel, patient, now)
        await _look_at_number(channel, patient)
        await _look_at_subscription(channel, patient, app_id, webhook_url)
        await _look_at_templates(channel, patient)
    except _Unreadable:
        pass  # noted, and what follows would say the same
    return found.checks


class _Patient:
    """Reads of Graph with one number's token."""

    def __init__(self, graph: Graph, token: str, found: Diagnosis) -> None:
        self._graph, self.token, self.found = graph, token, found

    async def read(self, name: str, path: str, params: Mapping[str, str]) -> Json:
        """Return what Meta shows. Raises: _Unreadable, noted under `name`."""
        answer = await self._graph.get(path, token=self.token, params=params)
        verdict = classify(answer.status, answer.body, answer.failure, is_repeatable=True)
        if verdict.kind is Kind.ACCEPTED:
            return mapping(answer.body)
        code = f" (Meta's code {verdict.meta_code})" if verdict.meta_code is not None else ""
        fix = _FIXES.get(verdict.rule.reason, "Run this again in a few minutes; if it stays, ask Meta with the code.")
        sentence = "Meta does not show it" if verdict.rule.reason == "invalid_request" else verdict.rule.sentence
        self.found.fail(name, f"{sentence.rstrip('.')}{code}.", fix)
        raise _Unreadable


def _look_at_state(channel: TokenedChannel, found: Diagnosis) -> None:
    resume = f"See why, then POST /api/whatsapp/channels/{channel.channel_id}/resume."
    if channel.hold_reason is not None:
        found.fail("state", f"Sending is held by what Meta told: {channel.hold_reason}.", resume)
    elif channel.state == "paused":
        found.fail("state", f"Sending is paused: {channel.paused_reason or 'unknown'}.", resume)
    elif channel.state == "connecting":
        fix = "See that a dispatcher runs; the check takes seconds. Its result: last_check of the number."
        found.warn("state", "Meta has yet to confirm that the number is ours.", fix)
    elif channel.marketing_paused_at is not None:
        found.warn("state", "Marketing is paused: Meta limits the number for spam.", resume)
    else:
        found.ok("state", "Connected.")


async def _look_at_token(channel: TokenedChannel, patient: _Patient, now: datetime) -> str | None:
    """Return the id of the app that the token belongs to."""
    found = patient.found
    shown = await patient.read("token", "debug_token", {"input_token": patient.token})
    data = mapping(shown.get("data"))
    scopes = {text(scope) for scope in elements(data.get("scopes"))}
    targets = {
        identifier(target)
        for granted in map(mapping, elements(data.get("granular_scopes")))
        if text(granted.get("scope")) in NEEDED_SCOPES
        for target in elements(granted.get("target_ids"))
    }
    missing = [scope for scope in NEEDED_SCOPES if scope not in scopes]
    expires_at = data.get("expires_at")
    until = datetime.fromtimestamp(expires_at, UTC) if isinstance(expires_at, int) and expires_at > 0 else None
    if data.get("is_valid") is not True:
        found.fail("token", "The token is not valid any more.", _RENEW)
        raise _Unreadable
    if missing:
        found.fail("token", f"The token may not {' nor '.join(missing)}.", _RENEW)
    elif targets and channel.waba_id not in targets:
        found.fail("token", f"The token does not reach account {channel.waba_id}.", _FIXES["permission"])
    elif until is not None and until - now < _EXPIRES_SOON:
        found.warn("token", f"The token expires on {until:%Y-%m-%d %H:%M} UTC.", _RENEW)
    else:
        found.ok("token", f"Opens, is valid {f'until {until:%Y-%m-%d}' if until else 'without end'}, has its scopes.")
    return identifier(data.get("app_id"))


async def _look_at_number(channel: TokenedChannel, patient: _Patient) -> None:
    number = await patient.read("number", channel.phone_number_id, {"fields": NUMBER_FIELDS})
    account = await patient.read("account", channel.waba_id, {"fields": "id,owner_business_info"})
    listed = await patient.read("account", f"{channel.waba_id}/phone_numbers", {"fields": "id", "limit": "500"})
    found = patient.found
    portfolio_id = identifier(mapping(account.get("owner_business_info")).get("id"))
    wrong = findings(number) + belonging(channel.phone_number_id, listed, portfolio_id)
    for one in wrong:
        fix = _NUMBER_FIXES.get(
            one.code, "Settle it in WhatsApp Manager; its page of the number says what Meta asks for."
        )
        (found.fail if one.level == "fail" else found.warn)("number", one.sentence, fix)
    if portfolio_id is not None and channel.portfolio_id not in ("", portfolio_id):
        found.fail(
            "account",
            f"The account belongs to portfolio {portfolio_id}, not {channel.portfolio_id} as recorded: "
            "people are told apart by it.",
            "Disconnect the number and connect it again, which reads it anew.",
        )
    if not wrong:
        found.ok("number", "Registered, healthy, and of this account.")


_NUMBER_FIXES = {
    "registration": "Register it: POST /<PHONE_NUMBER_ID>/register with its PIN (WhatsApp Manager can reset one).",
    "number_of_other_account": "Disconnect it, and connect it under the account that Meta's API setup page shows.",
    "quality_low": "Send less marketing, to people who asked for it; see the number's insights in WhatsApp Manager.",
}


async def _look_at_subscription(
    channel: TokenedChannel, patient: _Patient, app_id: str | None, webhook_url: str | None
) -> None:
    shown = await patient.read("subscription", f"{channel.waba_id}/subscribed_apps", {})
    apps = {
        identifier(mapping(row.get("whatsapp_business_api_data")).get("id")): row
        for row in map(mapping, elements(shown.get("data")))
    }
    found = patient.found
    ours = apps.get(app_id)
    override = text(ours.get("override_callback_uri")) if ours else None
    if ours is None:
        found.fail(
            "subscription",
            "Meta does not send this account's webhooks to our app: nothing customers write arrives.",
            "Set the number's token again (POST /api/whatsapp/channels), which subscribes it, or POST "
            "/<WABA_ID>/subscribed_apps with it.",
        )
    elif override and webhook_url and override != webhook_url:
        found.warn(
            "subscription",
            "The account's webhooks go to another address than WHATSAPP_WEBHOOK_URL.",
            "POST /<WABA_ID>/subscribed_apps without a body clears the override.",
        )
    else:
        found.ok("subscription", "The account's webhooks come to our app.")


async def _look_at_templates(channel: TokenedChannel, patient: _Patient) -> None:
    path = f"{channel.waba_id}/message_templates"
    shown = await patient.read("templates", path, {"fields": "status", "limit": "1000"})
    statuses = [text(mapping(one).get("status")) for one in elements(shown.get("data"))]
    approved, found = statuses.count("APPROVED"), patient.found
    if approved == 0:
        found.warn(
            "templates",
            "No template is approved: whoever wrote more than 24 hours ago cannot be answered.",
            "Create one and submit it: POST /api/whatsapp/templates.",
        )
    elif approved != channel.templates and len(statuses) < 1000:
        found.warn(
            "templates",
            f"Meta has {approved} approved templates, we know of {channel.templates}.",
            "Have them read again: POST /api/whatsapp/templates/sync. A dispatcher does so by itself, too.",
        )
    else:
        found.ok("templates", f"{approved} of {len(statuses)} are approved.")
