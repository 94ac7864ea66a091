"""A text, and Direct Send: a text outside the window without a template."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from shared.whatsapp.outbound.part import Part, given
from shared.whatsapp.problems import Problems
from shared.whatsapp.wire import Json

BODY_MOST = 4096
_DIRECT_SEND_BODY_MOST = 1024
_DIRECT_SEND_TTL_S = {"utility": (30, 43_200), "authentication": (30, 900)}
_HAS_URL = re.compile(r"https?://\S")


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectSend(Part):
    """Meta's beta of July 2026 (fact sheet 4.4, one source)."""

    category: Literal["utility", "authentication"]
    ttl_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Part):
    """preview_url: show a preview of the first link; not sent where the body has none, there being nothing to show."""

    body: str
    preview_url: bool = False
    direct_send: DirectSend | None = None
    type: Literal["text"] = "text"

    def check(self, problems: Problems) -> None:
        most = BODY_MOST if self.direct_send is None else _DIRECT_SEND_BODY_MOST
        problems.at("body").text(self.body, "The text", most)
        if self.direct_send:
            least, most = _DIRECT_SEND_TTL_S[self.direct_send.category]
            problems.at("direct_send").at("ttl_s").between(
                self.direct_send.ttl_s, "The time to live in seconds", least=least, most=most
            )

    def graph(self) -> Json:
        text = given(body=self.body, preview_url=True if self.preview_url and _HAS_URL.search(self.body) else None)
        if self.direct_send is None:
            return {"type": "text", "text": text}
        return {
            "type": "text",
            "text": text,
            "category": self.direct_send.category,
            "ttl_seconds": self.direct_send.ttl_s,
        }
