"""The header an interactive message may carry, and its body and footer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shared.whatsapp.outbound.media import check_source, source
from shared.whatsapp.outbound.part import Part, given
from shared.whatsapp.problems import Problems
from shared.whatsapp.wire import Json

HEADER_TEXT_MOST = 60
BODY_MOST = 1024
FOOTER_MOST = 60

HeaderKind = Literal["text", "image", "video", "document"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header(Part):
    """`text` for the type text; for the others a file, named as in `media`. filename: of a document."""

    type: HeaderKind
    text: str | None = None
    media_id: str | None = None
    meta_id: str | None = None
    link: str | None = None
    filename: str | None = None

    def check(self, problems: Problems, allowed: Sequence[HeaderKind]) -> None:
        if self.type not in allowed:
            problems.at("type").add(
                "not_allowed", f"The header of this message may be {' or '.join(allowed)}, not {self.type}."
            )
        elif self.type == "text":
            problems.at("text").text(self.text or "", "The header", HEADER_TEXT_MOST)
        else:
            check_source(problems, self.media_id, self.meta_id, self.link)
        if self.type != "text" and self.text:
            problems.at("text").add("not_together", "A header is a text or a file, not both.")
        if self.type == "text" and (self.media_id or self.meta_id or self.link):
            problems.add("not_together", "A header is a text or a file, not both.")
        if self.filename and self.type != "document":
            problems.at("filename").add("not_allowed", "Only a document in a header has a file name.")

    def graph(self) -> Json:
        if self.type == "text":
            return {"type": "text", "text": self.text}
        file = source(self.media_id, self.meta_id, self.link) | given(filename=self.filename)
        return {"type": self.type, self.type: file}


ANY_HEADER: tuple[HeaderKind, ...] = ("text", "image", "video", "document")


def check_around(
    problems: Problems,
    *,
    body: str | None,
    footer: str | None = None,
    body_most: int = BODY_MOST,
    needs_body: bool = True,
) -> None:
    """Check what stands around an action."""
    if needs_body or body:
        problems.at("body").text(body or "", "The text", body_most)
    problems.at("footer").optional_text(footer, "The footer", FOOTER_MOST)


def interactive(
    kind: str, action: Json, *, header: Header | None = None, body: str | None = None, footer: str | None = None
) -> Json:
    """Return the keys of an interactive message."""
    around = given(
        header=header.graph() if header else None,
        body={"text": body} if body else None,
        footer={"text": footer} if footer else None,
    )
    return {"type": "interactive", "interactive": {"type": kind, **around, "action": action}}
