"""Webhook bodies as one business number at Meta's top tier sees them, signed, each with ids of its own.

For every inbound text, three reports (sent, delivered, read) on a message of the business that we have no row for.
Made by filling in templates: some 5 µs each, so a minute's worth is ready before a clock starts.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

from tests.world import PHONE_A, WABA_A, text_message, webhook

PATH = "/api/webhooks/whatsapp"
SECRET = "bench"
# One number at 1,000 messages a second speaks with 6,000 customers at least: each gets one in 6 s at most.
PEOPLE = 10_000
ITEMS_PER_BATCH = 100

_TEXT = (
    "Good morning! Where is my order, please? I have been waiting for the two plants since Monday, and the link in "
    "your last message says they left the nursery."
)
_REPORTS = (b"sent", b"delivered", b"read")
_PLACES: dict[str, Any] = {"user_id": "US.%(person)d", "wa_id": "1202%(person)07d"}
_REPORT = {
    "id": "%(wamid)s",
    "status": "%(status)s",
    "timestamp": "%(at)d",
    "recipient_id": _PLACES["wa_id"],
    "recipient_user_id": _PLACES["user_id"],
    "pricing": {"billable": True, "pricing_model": "PMP", "type": "regular", "category": "utility"},
}


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()  # as Meta writes it


def _text_template() -> dict[str, Any]:
    parts = text_message(_TEXT, wamid="%(wamid)s", name="Customer %(person)d", **_PLACES)
    parts["message"]["timestamp"] = "%(at)d"
    return parts


def _around(**lists: object) -> dict[str, Any]:
    """Return a change of our number with these lists of items."""
    number = {"display_phone_number": "12025550143", "phone_number_id": PHONE_A}
    return {"field": "messages", "value": {"messaging_product": "whatsapp", "metadata": number, **lists}}


def _body(*changes: object) -> bytes:
    return _compact({"object": "whatsapp_business_account", "entry": [{"id": WABA_A, "changes": changes}]})


_ONE_TEXT = _compact(json.loads(webhook(_text_template())))
_ONE_REPORT = _body(_around(contacts=[_text_template()["contact"]], statuses=[_REPORT]))
_BATCH = _body(_around(contacts="%(contacts)s", messages="%(messages)s"), _around(statuses="%(statuses)s"))
_BATCH = _BATCH.replace(b'"%(contacts)s"', b"[%(contacts)s]").replace(b'"%(messages)s"', b"[%(messages)s]")
_BATCH = _BATCH.replace(b'"%(statuses)s"', b"[%(statuses)s]")
_CONTACT, _MESSAGE = _compact(_text_template()["contact"]), _compact(_text_template()["message"])
_STATUS = _compact(_REPORT)

Make = Callable[[int], bytes]


def single(number: int, *, stride: int = 1) -> bytes:
    """Return the body of that number, with one item: of four in a row, three report on one message and one is a text.

    `stride`: customers are every `stride`-th of PEOPLE × stride.
    """
    group, place = divmod(number, 4)
    filled = _names(b"S", group, stride)
    if place == 3:
        return _ONE_TEXT % filled
    filled[b"wamid"] = filled[b"theirs"]
    filled[b"status"] = _REPORTS[place]
    return _ONE_REPORT % filled


def text(number: int, *, stride: int = 1) -> bytes:
    """Return a body with one text: what makes customers known before a clock starts."""
    return _ONE_TEXT % _names(b"K", number, stride)


def batched(number: int) -> bytes:
    """Return the body of that number, with a hundred items in two changes: 25 texts, and 75 reports on 25 messages."""
    groups = [_names(b"B", number * 25 + i, 1) for i in range(ITEMS_PER_BATCH // 4)]
    return _BATCH % {
        b"contacts": b",".join(_CONTACT % names for names in groups),
        b"messages": b",".join(_MESSAGE % names for names in groups),
        b"statuses": b",".join(
            _STATUS % {**names, b"wamid": names[b"theirs"], b"status": report}
            for report in _REPORTS
            for names in groups
        ),
    }


def _names(kind: bytes, group: int, stride: int) -> dict[bytes, Any]:
    # 7919 is prime: neighbours in time are strangers to each other, as in life.
    return {
        b"person": group * 7919 % PEOPLE * stride,
        b"wamid": b"wamid.HBgLMTIwMjU1NTAxMTcVAgASGBI%bT%016XA=" % (kind, group),
        b"theirs": b"wamid.HBgLMTIwMjU1NTAxMTcVAgARGBI%bS%016XA=" % (kind, group),
        b"at": int(time.time()),
    }


_MAC = hmac.new(SECRET.encode(), digestmod=hashlib.sha256)


def request(body: bytes) -> bytes:
    """Return a whole HTTP/1.1 request around a body, signed."""
    mac = _MAC.copy()
    mac.update(body)
    return (
        b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: facebookexternalua\r\naccept: */*\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\nx-hub-signature-256: sha256=%b\r\n\r\n%b"
        % (PATH.encode(), len(body), mac.hexdigest().encode(), body)
    )
