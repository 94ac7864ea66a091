"""What Meta's refusals mean: one table from its codes to what we do and what an agent reads.

`classify` reads an answer to a call of ours (or its absence); `rule_for` reads a code that a status webhook brought.
Source: Meta, "Error codes", as in fact sheet 5.4 and 5.5, read 2026-11-22. Decided on the code, never on the text: Meta
rewords those. The schedules are ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from shared.whatsapp.wire import Json, elements, mapping


class Kind(StrEnum):
    """Whose move it is."""

    ACCEPTED = "accepted"  # Meta has it; what became of it comes by webhook
    THROTTLE_NUMBER = "throttle_number"  # slow this number down, fail nothing
    THROTTLE_PAIR = "throttle_pair"  # let this one recipient wait; the number goes on
    THROTTLE_APP = "throttle_app"  # the app's or account's budget of calls
    RETRY = "retry"  # certainly not sent: try again on schedule
    IN_DOUBT = "in_doubt"  # may have left: its status webhook decides, only then try again
    NEEDS_TEMPLATE = "needs_template"  # the agent's: the reply window is closed
    PERMANENT = "permanent"  # never as it stands
    CHANNEL = "channel"  # token, permission, payment, registration: nothing goes until a person mends it


class Then(StrEnum):
    """What else follows, besides the message's own fate."""

    NOTHING = "nothing"
    PAUSE_CHANNEL = "pause_channel"
    PAUSE_MARKETING = "pause_marketing"  # on this channel
    PAUSE_TEMPLATE = "pause_template"  # its bulk sends too
    RESYNC_TEMPLATES = "resync_templates"
    OPT_OUT = "opt_out"  # the contact wants no marketing
    READ_BOTH_LISTS = "read_both_lists"  # partly done: the body says which


@dataclass(frozen=True, slots=True)
class Retry:
    """after_s: seconds to wait before each further try; past its end there is none."""

    name: str
    after_s: tuple[int, ...]


NO = Retry("no", ())
BACKOFF = Retry("backoff", (5, 30, 120, 600, 1800))
SECONDS = Retry("backoff", (1, 2, 4, 8, 15, 30, 60, 60, 60, 60))  # a number's throughput: it recovers within seconds
MINUTES = Retry("backoff", (60, 180, 600, 1800, 3600))  # budgets counted by the hour
MAINTENANCE = Retry("backoff", (60, 60, 120, 600))  # a throughput upgrade takes about a minute
PAIR = Retry("backoff_pair", (1, 4, 16, 64, 256, 1024))  # Meta's own rule: 4^n seconds
LIMITED = Retry("limited", (60, 600))  # two more tries, each after the status webhook had its time
AFTER_24H = Retry("after_24h", (86_400,))
AFTER_10M = Retry("after_10m", (600, 600))
REFRESH_URL = Retry("refresh_url", (0,))  # ask for a new address once
RESTART = Retry("restart", (0,))  # from the first page, once


@dataclass(frozen=True, slots=True)
class Rule:
    """What one code means.

    reason: stable and ours, for programs, metrics and filters. sentence: for an agent.
    alert: somebody should look, though an agent cannot mend it.
    """

    kind: Kind
    reason: str
    sentence: str
    retry: Retry = NO
    then: Then = Then.NOTHING
    alert: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means. meta_code: the code that decided; meta_subcode: where Meta gave one."""

    rule: Rule
    meta_code: int | None = None
    meta_subcode: int | None = None

    @property
    def kind(self) -> Kind:
        return self.rule.kind

    @property
    def retry(self) -> Retry:
        return self.rule.retry


class Failure(StrEnum):
    """Why there is no answer, as the HTTP client's exception tells."""

    # Before the request left: certainly not sent.
    DNS = "dns"
    CONNECT = "connect"  # refused, unreachable, or no connection within its time
    TLS = "tls"
    POOL = "pool"  # no connection of ours was free
    # After it may have left.
    TIMEOUT = "timeout"  # while writing or reading
    RESET = "reset"  # closed on us: reset, or ended in the middle
    UNREADABLE = "unreadable"  # an answer that is not HTTP


_NOT_SENT = frozenset({Failure.DNS, Failure.CONNECT, Failure.TLS, Failure.POOL})

OK = Rule(Kind.ACCEPTED, "ok", "WhatsApp has accepted it.")
HELD = Rule(Kind.ACCEPTED, "held", "WhatsApp holds it back while it watches how the template is received.")
NOT_REACHED = Rule(
    Kind.RETRY, "not_reached", "WhatsApp could not be reached; it was not sent and is tried again.", BACKOFF
)
UNCLEAR = Rule(
    Kind.IN_DOUBT,
    "transient",
    "WhatsApp gave no clear answer; it may have been sent. Its status decides before it is tried again.",
    LIMITED,
)
PASSING = Rule(Kind.RETRY, "transient", "WhatsApp has trouble at the moment; it is tried again.", BACKOFF)
UNKNOWN = Rule(
    Kind.PERMANENT, "unknown", "WhatsApp refused it with an error we do not know; our engineers are told.", alert=True
)
URL_EXPIRED = Rule(
    Kind.RETRY, "media_url_expired", "The file's address had expired; a new one is asked for.", REFRESH_URL
)


def _channel(reason: str, sentence: str) -> Rule:
    return Rule(Kind.CHANNEL, reason, sentence, then=Then.PAUSE_CHANNEL, alert=True)


def _never(reason: str, sentence: str, *, then: Then = Then.NOTHING, alert: bool = False) -> Rule:
    return Rule(Kind.PERMANENT, reason, sentence, then=then, alert=alert)


_AUTH = _channel("auth", "The access to WhatsApp has expired or was withdrawn; an administrator must renew the token.")
_PERMISSION = _channel("permission", "Our access to WhatsApp lacks a permission; an administrator must grant it again.")
_BLOCKED = _channel(
    "account_blocked", "WhatsApp has blocked this business account; an administrator must settle it with Meta."
)
_REGISTRATION = _channel(
    "registration", "This phone number is not registered with WhatsApp; an administrator must register it again."
)
_PAYMENT = _channel("payment", "Meta cannot charge this account; an administrator must settle its payment method.")
_GONE = _channel(
    "number_gone", "This phone number no longer exists at WhatsApp; an administrator must connect another."
)
_OUR_BUG = _never(
    "invalid_request",
    "WhatsApp could not read this message; our engineers are told. Try it in another form.",
    alert=True,
)
_TEMPLATE_VALUES = _never(
    "template_invalid", "The values do not fit the template; check their number, kind and length."
)
_TEMPLATE_TEXT = "WhatsApp refused the template: "
_GROUP = _never("group", "WhatsApp refused this in a group.")
_CALLING = _never("calling", "WhatsApp refused this about calls.")
_FLOW = _never("flow_invalid", "WhatsApp refused the flow; check that it is published and complete.")
_BLOCK_LIST = _never("block_list", "WhatsApp did not change the block list.")
_USERNAME = _never("username", "WhatsApp refused this user name.")
_INSIGHTS = _never("insights_disabled", "Template statistics are not available for this account, or not switched on.")
_HISTORY = _never("history_sync", "WhatsApp does not share the chat history of this number.")
_MARKETING = "the Marketing Messages API"


def _each(codes: Iterable[int], rule: Rule) -> dict[int, Rule]:
    return dict.fromkeys(codes, rule)


RULES: dict[int, Rule] = {
    # Access and account: nothing goes until a person mends it.
    **_each((0, 190), _AUTH),
    **_each((3, 10, 131005, *range(200, 300)), _PERMISSION),
    **_each((368, 131031), _BLOCKED),
    **_each((131042, 131044, 134011), _PAYMENT),
    **_each(
        (131037, 131045, 133000, 133005, 133006, 133008, 133009, 133010, 133015, 133016),
        _REGISTRATION,
    ),
    33: _GONE,
    # Too fast.
    130429: Rule(
        Kind.THROTTLE_NUMBER, "rate_limit_throughput", "This number sends too fast; it goes a little later.", SECONDS
    ),
    131056: Rule(
        Kind.THROTTLE_PAIR,
        "rate_limit_pair",
        "Too many messages to this customer in a row; it goes a little later.",
        PAIR,
    ),
    4: Rule(
        Kind.THROTTLE_APP, "rate_limit_app", "Our app has asked WhatsApp too often; it goes a little later.", MINUTES
    ),
    80007: Rule(
        Kind.THROTTLE_APP,
        "rate_limit_waba",
        "This account has asked WhatsApp too often; it goes a little later.",
        MINUTES,
    ),
    132069: Rule(
        Kind.RETRY, "flow_throttled", "WhatsApp throttles this flow to 10 messages an hour; it goes later.", MINUTES
    ),
    # Meta's bad day.
    **_each((2, 131016, 133004), PASSING),
    **_each(
        (131057, 2494100),
        Rule(Kind.RETRY, "transient", "WhatsApp is upgrading this number; it goes in about a minute.", MAINTENANCE),
    ),
    **_each((1, 131000), UNCLEAR),
    131053: Rule(
        Kind.IN_DOUBT,
        "media",
        "WhatsApp could not take the file. Check its type and size; it may be a passing fault, so it is tried again.",
        LIMITED,
    ),
    # The customer.
    131047: Rule(
        Kind.NEEDS_TEMPLATE, "window_closed", "The customer last wrote more than 24 hours ago; send a template instead."
    ),
    131049: Rule(
        Kind.RETRY,
        "marketing_capped",
        "WhatsApp limits the marketing this customer gets; it is tried again after 24 hours, not before.",
        AFTER_24H,
    ),
    131050: _never("opted_out", "The customer wants no marketing messages from you.", then=Then.OPT_OUT),
    131026: _never(
        "undeliverable",
        "The customer cannot get this: no WhatsApp on this number, an old version, or terms not accepted. "
        "Reach them another way.",
    ),
    130472: _never("experiment", "WhatsApp keeps marketing from this customer for an experiment of its own."),
    130403: _never("blocked_by_business", "You have blocked this customer; unblock them first."),
    131062: _never("bsuid_unsupported", "This message needs the customer's phone number; ask them for it."),
    137000: _never("identity_mismatch", "The customer's identity has changed; verify who they are before you write."),
    131021: _never("invalid_request", "The recipient is this very number; write to another one."),
    131030: _never(
        "test_number_recipient", "This is a test number: add the recipient to its list at Meta first.", alert=True
    ),
    130497: _never("country_blocked", "WhatsApp does not let this business write to the customer's country."),
    131048: _never(
        "spam",
        "WhatsApp limits this number, since too many customers blocked or reported it. Send no more marketing for now.",
        then=Then.PAUSE_MARKETING,
        alert=True,
    ),
    131064: _never("messaging_limit", "WhatsApp limits how many customers this account may write to.", alert=True),
    # What we said.
    **_each((100, 131008, 131009, 131051, 135000), _OUR_BUG),
    131052: _never("media", "WhatsApp could not fetch the file the customer sent; ask them to send it again."),
    # Templates.
    **_each((132000, 132012), _TEMPLATE_VALUES),
    132005: _never("template_invalid", "With these values the template's text is too long; shorten them."),
    132007: _never("template_invalid", "The template's content breaks WhatsApp's policy; change the template."),
    **_each((132008, 132018), _TEMPLATE_VALUES),
    132001: _never(
        "template_missing",
        "The template does not exist in this language, or is not approved; choose another.",
        then=Then.RESYNC_TEMPLATES,
    ),
    132015: _never(
        "template_paused",
        "WhatsApp has paused this template for its quality; choose another, or wait.",
        then=Then.PAUSE_TEMPLATE,
    ),
    132016: _never(
        "template_disabled", "WhatsApp has disabled this template for good; write a new one.", then=Then.PAUSE_TEMPLATE
    ),
    132068: _never("flow_blocked", "WhatsApp has blocked the flow of this message; it must be mended first."),
    2388019: _never("template_limit", "The account has as many templates as it may have; delete some first."),
    2388024: _never("template_exists", "There is a template of this name in this language already; edit that one."),
    2388040: _never("template_invalid", _TEMPLATE_TEXT + "something in it is too long."),
    2388047: _never("template_invalid", _TEMPLATE_TEXT + "the header is not as it should be."),
    2388072: _never("template_invalid", _TEMPLATE_TEXT + "the body is not as it should be."),
    2388073: _never("template_invalid", _TEMPLATE_TEXT + "the footer is not as it should be."),
    2388293: _never("template_invalid", _TEMPLATE_TEXT + "too many placeholders for so little text."),
    2388299: _never("template_invalid", _TEMPLATE_TEXT + "a placeholder may not stand at the start or end."),
    **_each((2388318, 2388330, 139200), _never("direct_send", "WhatsApp does not let this go without a template.")),
    131059: Rule(Kind.RETRY, "invalid_cursor", "The list is read again from its start.", RESTART),
    # Marketing Messages API.
    **_each(
        (131055, 134100), _never("invalid_request", f"Only marketing templates go through {_MARKETING}.", alert=True)
    ),
    **_each((131063, 134102), _never("mm_unavailable", f"This account cannot use {_MARKETING}.", alert=True)),
    134101: Rule(
        Kind.RETRY, "mm_syncing", f"The template is still on its way to {_MARKETING}; it goes later.", AFTER_10M
    ),
    # Corners.
    **_each((131020, 131041, *range(131201, 131216)), _GROUP),
    **_each(range(138000, 138019), _CALLING),
    **_each(range(139000, 139005), _FLOW),
    139100: _never("partial", "WhatsApp changed the block list for some of them only.", then=Then.READ_BOTH_LISTS),
    139101: _never("block_list", "This number's block list is full."),
    **_each((139102, 139103), _BLOCK_LIST),
    **_each(range(147001, 147006), _USERNAME),
    **_each(range(200005, 200008), _INSIGHTS),
    **_each(range(2593107, 2593110), _HISTORY),
}

# Template failures come as code 100 with the real number beside it, or as the code itself.
_READ_AS_SUBCODE = range(2_388_000, 2_389_000)


def rule_for(code: int, subcode: int | None = None) -> Rule:
    """Return what a code means; one we do not know is permanent and somebody is told."""
    if subcode in _READ_AS_SUBCODE and subcode in RULES:
        return RULES[subcode]
    if subcode in _READ_AS_SUBCODE or (code in _READ_AS_SUBCODE and code not in RULES):
        return _never("template_invalid", _TEMPLATE_TEXT + "see what Meta says about it.", alert=True)
    return RULES.get(code, UNKNOWN)


def classify(
    http_status: int | None, body: object = None, failure: Failure | None = None, *, is_repeatable: bool = False
) -> Verdict:
    """Return what became of a call to Graph.

    body: the parsed JSON, or None where it is not JSON. failure: why there is no answer at all.
    is_repeatable: making the call twice does no harm (all but sending a message), so doubt is only a reason to retry.
    """
    verdict = _classify(http_status, body, failure)
    if is_repeatable and verdict.kind is Kind.IN_DOUBT:
        rule = verdict.rule
        return Verdict(
            Rule(Kind.RETRY, rule.reason, PASSING.sentence, rule.retry), verdict.meta_code, verdict.meta_subcode
        )
    return verdict


def _classify(http_status: int | None, body: object, failure: Failure | None) -> Verdict:
    if failure is not None or http_status is None:
        return Verdict(NOT_REACHED if failure in _NOT_SENT else UNCLEAR)
    error = mapping(mapping(body).get("error"))
    code = _integer(error.get("code"))
    if code is not None:
        return _of_error(http_status, code, error)
    if 200 <= http_status < 300 and not error:
        return Verdict(_of_success(mapping(body)))
    if http_status == 429:
        return Verdict(RULES[130429])
    # Not JSON, or JSON of somebody else's: a gateway answered, and what stands behind it may have done the work.
    return Verdict(UNCLEAR if http_status >= 500 or http_status == 408 else UNKNOWN)


def _of_error(http_status: int, code: int, error: Json) -> Verdict:
    subcode = _integer(error.get("error_subcode"))
    rule = rule_for(code, subcode)
    if rule is UNKNOWN and http_status == 429:
        rule = RULES[130429]
    elif rule is UNKNOWN and error.get("is_transient") is True:
        # Meta's promise that trying again helps; a refusal did nothing, a server's failure may have done it.
        rule = PASSING if http_status < 500 else UNCLEAR
    return Verdict(rule, code, subcode)


def _of_success(body: Json) -> Rule:
    """Judge a success: one we cannot read, or a send that names no message, is in doubt."""
    if not body or ("messages" in body and wamid_of(body) is None):
        return UNCLEAR
    sent = mapping(next(iter(elements(body.get("messages"))), None))
    return HELD if sent.get("message_status") in ("held_for_quality_assessment", "paused") else OK


def wamid_of(answer: object) -> str | None:
    """Return the wamid a send was answered with."""
    sent = mapping(next(iter(elements(mapping(answer).get("messages"))), None))
    wamid = sent.get("id")
    return wamid if isinstance(wamid, str) and wamid else None


def classify_download(http_status: int | None, failure: Failure | None = None) -> Verdict:
    """Return what became of fetching a file from the address Meta gave, which lives 5 minutes.

    401 and 403 too are said of a dead address; when a new one is refused alike, `retry` has run out.
    """
    if failure is None and http_status is not None and http_status in (401, 403, 404, 410):
        return Verdict(URL_EXPIRED)
    return classify(http_status, {"success": True}, failure, is_repeatable=True)


def _integer(value: object) -> int | None:
    """Return a code; Meta has sent numbers as strings elsewhere."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12 else None
