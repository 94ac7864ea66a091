"""What is wrong with something we were about to say to Meta: collected whole, so that an agent mends it in one go.

A limit counts characters as Unicode code points, which is what `len` gives. Meta's page says "characters" only; its
OpenAPI file states the same limits as JSON Schema's maxLength, which counts code points, and so does courier in
production (it cuts runes). So 👍🏽 counts two, é one or two as it was typed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from urllib.parse import urlsplit

from shared.whatsapp.wire import ID_LIMIT

_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")  # U+0000 and lone surrogates: no UTF-8, no PostgreSQL
_BLANKS = re.compile(r"\s")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend.

    field: path in what we were given, as in `buttons[2].title`; empty for the whole.
    code: stable, for programs. message: a sentence for an agent, which names the limit.
    """

    field: str
    code: str
    message: str


class Problems:
    """Collects problems, knowing the place they are about."""

    __slots__ = ("_found", "_path")

    def __init__(self, path: str = "", found: list[Problem] | None = None) -> None:
        self._path = path
        self._found: list[Problem] = [] if found is None else found

    def at(self, name: str, index: int | None = None) -> Problems:
        """Return the same collection, one step further in."""
        step = name if index is None else f"{name}[{index}]"
        return Problems(f"{self._path}.{step}" if self._path else step, self._found)

    def item(self, index: int) -> Problems:
        """Return the same collection, at an element of the list it is at."""
        return Problems(f"{self._path}[{index}]", self._found)

    def found(self) -> list[Problem]:
        return list(self._found)

    def add(self, code: str, message: str) -> None:
        self._found.append(Problem(self._path, code, message))

    def text(self, value: str, what: str, most: int | None = None) -> None:
        """Require something readable, of at most so many characters."""
        if not value.strip():
            self.add("empty", f"{what} is empty.")
        self._written(value, what, most)

    def optional_text(self, value: str | None, what: str, most: int | None = None) -> None:
        """As `text`, for what may be left out: None and "" are both that."""
        if value:
            self.text(value, what, most)

    def _written(self, value: str, what: str, most: int | None) -> None:
        if most is not None and len(value) > most:
            self.add("too_long", f"{what} has {len(value):,} characters; WhatsApp allows {most:,}.")
        if _NOT_TEXT.search(value):
            self.add("not_text", f"{what} holds a character that is not text (U+0000 or half an emoji).")

    def identifier(self, value: str, what: str, most: int = ID_LIMIT) -> None:
        """Require an id: something, without blanks around it."""
        if not value or value != value.strip():
            self.add("empty" if not value.strip() else "bad_format", f"{what} must be an id without blanks around it.")
        self._written(value, what, most)

    def count(self, items: Sized, what: str, *, least: int, most: int) -> None:
        """`what` is a plural: "buttons"."""
        if len(items) < least:
            wanted = f"between {least} and {most}" if least > 1 else "at least one"
            self.add("too_few", f"There are {len(items)} {what}; WhatsApp wants {wanted}.")
        if len(items) > most:
            self.add("too_many", f"There are {len(items)} {what}; WhatsApp allows {most}.")

    def unique(self, values: Iterable[str], what: str) -> None:
        """`what` is a plural: "button ids"."""
        repeated = [value for value, times in Counter(values).items() if times > 1]
        if repeated:
            self.add("duplicate", f"The {what} must differ: “{repeated[0]}” appears more than once.")

    def url(self, value: str, what: str, most: int | None = None) -> None:
        self._written(value, what, most)
        if not is_web_address(value):
            self.add("bad_format", f"{what} must be a web address that starts with https:// or http://.")

    def between(self, value: float, what: str, *, least: float, most: float) -> None:
        """NaN is never between."""
        if not least <= value <= most:
            self.add("out_of_range", f"{what} is {value:g}; it must be between {least:,g} and {most:,g}.")

    def one_of(self, value: str, what: str, allowed: Sequence[str]) -> None:
        if value not in allowed:
            self.add("unsupported", f"{what} is “{value}”; WhatsApp knows {', '.join(allowed)}.")


def is_web_address(value: str) -> bool:
    """Tell whether Meta could fetch it or a phone open it: http or https, with a host, without blanks."""
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not _BLANKS.search(value)
