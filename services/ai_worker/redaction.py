"""What Claude need not know: mail addresses, phone and card numbers, bank accounts, national ids. Pure.

Each becomes a placeholder, `[PHONE_1]`, numbered in order of appearance, the same value the same placeholder; `restore`
puts the values back into what Claude wrote. Numbers are not recognised by a list of countries' formats, which would
miss the next one: **every** run of seven or more digits goes, however grouped, unless it reads as a date or an amount
of money. What that takes too much (order numbers) is restored like the rest. Names, addresses, shorter numbers stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

FEWEST_DIGITS = 7  # the shortest local phone numbers; an order number is shorter as often as not
_SPARE = 400  # characters looked at beyond a cut, so that a number across it is seen to be one
_KINDS = ("EMAIL", "PHONE", "CARD", "IBAN", "ID", "NUMBER", "TEXT")
# Anything a customer types in this form is itself replaced (TEXT), so that no placeholder of ours means two things.
PLACEHOLDER = re.compile(rf"\[(?:{'|'.join(_KINDS)})_\d{{1,6}}\]", re.IGNORECASE)

# What people put between digits: spaces of all widths, hyphens, dots, slashes, brackets, what shows nothing, keycaps.
_BETWEEN = (
    r"[ \t\u00a0\u2000-\u200f\u202a-\u202f\u2060-\u2064\ufeff\u00ad\ufe0f\u20e3"
    r".,·/()_*\-\u2010-\u2015\u2212\uff0d\uff0e]"
)
_DIGITS = re.compile(rf"[+\uff0b]?\(?\d(?:{_BETWEEN}{{0,4}}\d)*")
_LETTER_BEFORE = re.compile(r"(?<![^\W\d_])(?:[^\W\d_][-.]?|[A-Z] )\Z")  # X-1234567-L, B12345678
_LETTER_AFTER = re.compile(r"(?:[-.]?[^\W\d_]| [A-Z])(?![^\W_])")  # 12.345.678-Z
_TOKEN = re.compile(r"[A-Za-z0-9]{8,40}")  # L01X00T471, AB1234567
_IBAN = re.compile(rf"[A-Za-z]{{2}}\d\d(?:{_BETWEEN}?[A-Za-z0-9]){{11,30}}")
# With Corsica's départements, whose letter parts the digits.
_NIR = re.compile(r"(?<!\d)[12](?:[ .]?\d\d){2}[ .]?2[ABab][ .]?\d{3}[ .]?\d{3}(?:[ .]?\d\d)?(?!\d)")
_MAIL_STOPS = frozenset(" \t\r\n<>()[]{}\"',;:|@＠\u00a0\u2028\u2029")
_MAIL_IN_WORDS = re.compile(
    r"[\w.+-]{1,64}\s?[(\[{]\s?(?:at|arroba|chez|ät)\s?[)\]}]\s?\w[\w.\-]*(?:\s?[(\[{]\s?(?:dot|punkt|ponto|punto|point)\s?[)\]}]\s?\w+)*",
    re.IGNORECASE,
)

_YEAR, _MONTH, _DAY = r"(?:19|20)\d\d", r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
_DATE = rf"(?:{_YEAR}[-./]{_MONTH}[-./]{_DAY}|{_DAY}[-./]{_DAY}[-./](?:{_YEAR}|\d\d))"  # month first in the US
_DATES = re.compile(rf"{_DATE}(?: ?[-–/] ?{_DATE})?|(?:19|20)\d\d ?[-–/] ?(?:19|20)\d\d", re.ASCII)
_DATE_AND_HOUR = re.compile(rf"{_DATE},? \d{{1,2}}", re.ASCII)
_HOUR_GOES_ON = re.compile(r":\d|\s?(?:h|Uhr|am|pm)\b")
_SAFE_AMOUNT = re.compile(
    r"[1-9](?:\.\d{3}){2}|[1-9](?:,\d{3}){2}|[1-9]\d{0,2}(?:\.\d{3})+,\d\d|[1-9]\d{0,2}(?:,\d{3})+\.\d\d", re.ASCII
)
_PRICED_AMOUNT = re.compile(r"[1-9]\d{0,2}(?:[.,\u00a0 ]\d{3})+(?:[.,]\d\d)?|[1-9]\d{4,7}[.,]\d\d", re.ASCII)
_CURRENCY_BEFORE = re.compile(r"(?:[$€£¥₹]|\b(?:EUR|USD|BRL|GBP|MXN|COP|CLP|ARS|CHF|SEK))\s?\Z")
_CURRENCY_AFTER = re.compile(
    r"\s?(?:[$€£¥₹]|(?:EUR|USD|BRL|GBP|MXN|COP|CLP|ARS|CHF|SEK|reais|euros?|dollars?|pesos|kr)\b)"
)

# A second look, deliberately by other means than the first: whoever breaks the finding must not break this too.
_RESIDUE = re.compile(r"[^\s@]@[^\s@]+\.\w|\d{9}|\d{4}[ -]\d{4}[ -]\d{4}")


class NotRedacted(ValueError):
    """Something personal is still there: the text must not leave. Says where it looked, never what it saw."""


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    kind: str


class Redactor:
    """Placeholders of one request. Redact in the order Claude reads; then restore its answer."""

    def __init__(self) -> None:
        self._placeholder_of: dict[str, str] = {}
        self._value_of: dict[str, str] = {}
        self.counts: dict[str, int] = {}

    def text(self, text: str, *, most_characters: int | None = None) -> str:
        """Return the text with placeholders, of its first `most_characters`: what stands across the cut goes whole."""
        most = len(text) if most_characters is None else most_characters
        shown, at = [], 0
        for span in spans(text[: most + _SPARE]):
            if span.start >= most:
                break
            shown += [text[at : span.start], self._placeholder(text[span.start : span.end], span.kind)]
            at = span.end
        redacted = "".join([*shown, text[at:most]])
        if _RESIDUE.search(PLACEHOLDER.sub("", redacted)) and _is_personal(PLACEHOLDER.sub("[]", redacted)):
            raise NotRedacted("redaction left something behind")
        return redacted

    def document(self, value: object, *, most_characters: int | None = None) -> object:
        """Return a JSON value with every text in it redacted; the keys are ours."""
        if isinstance(value, str):
            return self.text(value, most_characters=most_characters)
        if isinstance(value, dict):
            return {key: self.document(child, most_characters=most_characters) for key, child in value.items()}
        if isinstance(value, list | tuple):
            return [self.document(child, most_characters=most_characters) for child in value]
        return value

    def restore(self, text: str) -> str:
        """Put the values back. A placeholder we did not hand out, and so cannot fill, becomes an ellipsis."""
        return PLACEHOLDER.sub(lambda found: self._value_of.get(found[0].upper(), "…"), text)

    def restore_json(self, text: str) -> str:
        """The same within a JSON text, where a value must not end the string it stands in."""
        return PLACEHOLDER.sub(
            lambda found: json.dumps(self._value_of.get(found[0].upper(), "…"), ensure_ascii=False)[1:-1], text
        )

    def _placeholder(self, value: str, kind: str) -> str:
        if value not in self._placeholder_of:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            placeholder = f"[{kind}_{self.counts[kind]}]"
            self._placeholder_of[value] = placeholder
            self._value_of[placeholder] = value
        return self._placeholder_of[value]


def spans(text: str) -> list[_Span]:
    """Return what is personal in a text, in order, what overlaps made one."""
    found = sorted(
        [*_placeholders(text), *_mails(text), *_accounts(text), *_numbers(text), *_tokens(text)],
        key=lambda span: (span.start, -span.end),
    )
    joined: list[_Span] = []
    for span in found:
        if joined and span.start < joined[-1].end:
            last = joined[-1]
            kind = min(last.kind, span.kind, key=("TEXT", "EMAIL", "IBAN", "CARD", "ID", "PHONE", "NUMBER").index)
            joined[-1] = _Span(last.start, max(last.end, span.end), kind)
        else:
            joined.append(span)
    return joined


def _placeholders(text: str) -> Iterator[_Span]:
    return (_Span(*found.span(), "TEXT") for found in PLACEHOLDER.finditer(text))


def _mails(text: str) -> Iterator[_Span]:
    for sign in re.finditer("[@＠]", text):
        start, end = sign.start(), sign.end()
        while start > 0 and text[start - 1] not in _MAIL_STOPS:
            start -= 1
        while end < len(text) and text[end] not in _MAIL_STOPS:
            end += 1
        domain = text[sign.end() : end].rstrip(".!?…")  # a sentence may end there
        if start < sign.start() and domain:
            yield _Span(start, sign.end() + len(domain), "EMAIL")
    for written in _MAIL_IN_WORDS.finditer(text):
        yield _Span(*written.span(), "EMAIL")


def _accounts(text: str) -> Iterator[_Span]:
    """IBANs with a right check: the longest reading, since a word may follow."""
    for found in _IBAN.finditer(text):
        for end in range(found.end(), found.start() + 14, -1):
            if text[end - 1].isalnum() and _is_iban("".join(c for c in text[found.start() : end] if c.isalnum())):
                yield _Span(found.start(), end, "IBAN")
                break
    for found in _NIR.finditer(text):
        yield _Span(*found.span(), "ID")


def _numbers(text: str) -> Iterator[_Span]:
    for found in _DIGITS.finditer(text):
        digits = "".join(c for c in found[0] if c.isdecimal())
        if len(digits) < FEWEST_DIGITS or _says_when_or_how_much(text, found):
            continue
        start, end = found.span()
        kind = _kind(found[0], digits)
        if before := _LETTER_BEFORE.search(text, max(0, start - 2), start):
            start, kind = before.start(), "ID"
        if after := _LETTER_AFTER.match(text, end):
            end, kind = after.end(), "ID"
        yield _Span(start, end, kind)


def _tokens(text: str) -> Iterator[_Span]:
    """Letters and digits mixed, as on identity cards and passports."""
    for found in _TOKEN.finditer(text):
        digits = sum(c.isdigit() for c in found[0])
        is_code = digits >= 5 or (digits >= 3 and len(found[0]) >= 9 and found[0] == found[0].upper())
        if is_code and not found[0].isdigit():
            yield _Span(*found.span(), "ID")


def _says_when_or_how_much(text: str, found: re.Match[str]) -> bool:
    """Tell dates and amounts, which Claude needs, from numbers that name somebody. In doubt it is a number."""
    number = found[0]
    if text[found.end() : found.end() + 1].isalnum() or text[max(0, found.start() - 1) : found.start()].isalnum():
        return False
    if _DATES.fullmatch(number) or _SAFE_AMOUNT.fullmatch(number):
        return True
    if _DATE_AND_HOUR.fullmatch(number):
        return _HOUR_GOES_ON.match(text, found.end()) is not None
    if _PRICED_AMOUNT.fullmatch(number):
        before = _CURRENCY_BEFORE.search(text, max(0, found.start() - 5), found.start())
        return before is not None or _CURRENCY_AFTER.match(text, found.end()) is not None
    return False


def _is_personal(text: str) -> bool:
    """Whether what the second look found is not just a date or an amount."""
    return any(True for _ in (*_mails(text), *_numbers(text))) or re.search(r"\d{9}", text) is not None


def _kind(written: str, digits: str) -> str:
    """Name a number for Claude, who reads "call me at [PHONE_1]" better than "[NUMBER_1]"; not what decides."""
    numbers = [int(c) for c in digits]
    if written[0] in "+\uff0b(":
        return "PHONE"
    if 13 <= len(numbers) <= 19 and _luhn(numbers):
        return "CARD"
    if _is_national_id(written, numbers):
        return "ID"
    has_groups = len(written) > len(digits)
    if numbers[0] == 0 or (len(digits) <= 13 and (has_groups or len(digits) >= 10)):
        return "PHONE"
    return "NUMBER"


def _is_national_id(written: str, numbers: list[int]) -> bool:
    """CPF and CNPJ, SSN, Steuer-ID, NIR: by their check digits, or (SSN has none) by how they are written."""
    match len(numbers):
        case 9:
            return re.fullmatch(r"\d{3}-\d\d-\d{4}", written) is not None
        case 11:
            return _mod_11(numbers, (9, 10), most_weight=11) or _is_steuer_id(numbers)
        case 14:
            return _mod_11(numbers, (12, 13), most_weight=9)
        case 15:
            whole = int("".join(map(str, numbers)))
            return 97 - whole // 100 % 97 == whole % 100
        case _:
            return False


def _mod_11(numbers: list[int], places: tuple[int, int], *, most_weight: int) -> bool:
    """Brazil's: weights grow from 2 leftwards, up to `most_weight`, then from 2 again. Source: Receita Federal."""
    for place in places:
        weighed = sum(n * (2 + i % (most_weight - 1)) for i, n in enumerate(reversed(numbers[:place])))
        if numbers[place] != (0 if weighed % 11 < 2 else 11 - weighed % 11):
            return False
    return len(set(numbers)) > 1


def _is_steuer_id(numbers: list[int]) -> bool:
    """ISO 7064 MOD 11,10. Source: Bundeszentralamt für Steuern."""
    product = 10
    for number in numbers[:10]:
        total = (number + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == numbers[10] and numbers[0] != 0


def _luhn(numbers: list[int]) -> bool:
    doubled = [n if i % 2 == 0 else (n * 2 - 9 if n > 4 else n * 2) for i, n in enumerate(reversed(numbers))]
    return sum(doubled) % 10 == 0


def _is_iban(written: str) -> bool:
    """ISO 13616: the first four moved behind, letters as 10 to 35, must be 1 modulo 97."""
    if not 15 <= len(written) <= 34 or not written.isascii():
        return False
    moved = written[4:] + written[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1
