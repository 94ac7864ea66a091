"""Approved templates offered to Claude while the reply window is closed, and what is believed of its choice. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.whatsapp.outbound.template import TextValue
from shared.whatsapp.templates import TemplateDefinition, Values, fill
from shared.whatsapp.templates.fill import body_placeholders
from shared.whatsapp.templates.placeholders import placeholders
from shared.whatsapp.templates.stored import says, stored_definition

MOST_OFFERED = 8  # about 60 tokens each; more do not make the choice better
NO_TEMPLATE = "none"
HEADER = "header"  # what we call the header's placeholder
_MOST_VALUE = 200  # of one value: a name, a number, a date; not a letter of the customer's own
# Links, and our marks for what was kept from Claude where nothing stands behind them.
_NO_VALUE = re.compile(r"https?://|www\.|…|\{\{|\}\}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Offer:
    """A template that texts alone can fill; `names`: of its placeholders, those of the body and HEADER."""

    ref: str
    template_id: str
    definition: TemplateDefinition
    text: str
    names: tuple[str, ...]

    def shown(self) -> dict[str, object]:
        """Return it as Claude sees it."""
        return {
            "ref": self.ref,
            "language": self.definition.language,
            "text": self.text,
            "placeholders": list(self.names),
        }


def offers(rows: Iterable[Mapping[str, Any]]) -> tuple[Offer, ...]:
    """Return what can be offered of approved templates: [{id, template_name, language, category, components}].

    Left out are those that want a file, a coupon, a link's end or cards: nobody but an agent can give them.
    """
    found: list[Offer] = []
    for row in rows:
        definition = stored_definition(dict(row))
        if definition is None:
            continue
        offer = _offer(f"t{len(found) + 1}", str(row["id"]), definition)
        if not fill(definition, _values(offer, dict.fromkeys(offer.names, "x")))[1]:
            found.append(offer)
        if len(found) == MOST_OFFERED:
            break
    return tuple(found)


def _offer(ref: str, template_id: str, definition: TemplateDefinition) -> Offer:
    parts = (definition.header and definition.header.text, definition.body and definition.body.text)
    header = (HEADER,) if definition.header and placeholders(definition.header.text or "") else ()
    return Offer(
        ref=ref,
        template_id=template_id,
        definition=definition,
        text="\n".join(part for part in parts if part),
        names=(*header, *body_placeholders(definition.body, definition)),
    )


def chosen(ref: object, values: object, offered: Sequence[Offer]) -> dict[str, Any] | None:
    """Return the template Claude chose, ready to be sent: {id, template_name, language, values, text}; None: none fits.

    `values`: [{name, value}]. A choice that Meta would refuse, or that we did not offer, is no choice.
    """
    offer = next((offer for offer in offered if offer.ref == ref), None)
    given = _given(values)
    if offer is None or set(given) != set(offer.names):
        return None
    filled = _values(offer, given)
    template, problems = fill(offer.definition, filled)
    if problems:
        return None
    shown: dict[str, Any] = {"body": dict(filled.body)}
    if HEADER in given:
        shown["header"] = {"type": "text", "text": given[HEADER]}
    return {
        "id": offer.template_id,
        "template_name": offer.definition.name,
        "language": offer.definition.language,
        "values": shown,
        "text": says(offer.definition, template),
    }


def _given(values: object) -> dict[str, str]:
    """Return what can be a value: one line, short, no link. Of anything else nothing, so the choice does not fit."""
    given: dict[str, str] = {}
    for pair in values if isinstance(values, list) else ():
        name, value = (pair.get("name"), pair.get("value")) if isinstance(pair, dict) else (None, None)
        if isinstance(name, str) and isinstance(value, str):
            line = " ".join("".join(char if char.isprintable() else " " for char in value).split())
            if line and len(line) <= _MOST_VALUE and not _NO_VALUE.search(line):
                given.setdefault(name, line)
    return given


def _values(offer: Offer, given: Mapping[str, str]) -> Values:
    body = {name: value for name, value in given.items() if name != HEADER or HEADER not in offer.names}
    return Values(header=TextValue(text=given[HEADER]) if HEADER in offer.names else None, body=body)
