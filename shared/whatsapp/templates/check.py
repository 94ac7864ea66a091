"""Whether Meta would take a template: the rules it applies when one is created, all problems at once.

Source: Meta, "Template management" and "Template components", as in fact sheet 6.1 and 6.2, read 2026-11-22.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from shared.whatsapp.outbound.template import BUTTONS_MOST, COUPON_MOST, check_name
from shared.whatsapp.problems import Problem, Problems
from shared.whatsapp.templates.definition import (
    NAMED,
    POSITIONAL,
    Body,
    Button,
    Footer,
    Header,
    TemplateDefinition,
)
from shared.whatsapp.templates.languages import LANGUAGES, WITHOUT_SPACES
from shared.whatsapp.templates.placeholders import (
    has_neighbours,
    has_stray_braces,
    is_name,
    is_number,
    placeholders,
    starts_or_ends,
    words_beside,
)

HEADER_MOST = 60
BODY_MOST = 1024
OFFER_BODY_MOST = 600
OFFER_TEXT_MOST = 16
CARD_BODY_MOST = 160
FOOTER_MOST = 60
BUTTON_TEXT_MOST = 25
URL_MOST = 2000
PHONE_MOST = 20
CARDS_LEAST, CARDS_MOST = 2, 10
EXPIRATION_MINUTES = (1, 90)
TTL_S = {"AUTHENTICATION": (30, 900), "UTILITY": (30, 43_200), "MARKETING": (43_200, 2_592_000)}
TTL_30_DAYS = -1

_CATEGORIES = ("AUTHENTICATION", "MARKETING", "UTILITY")
_MEDIA = ("IMAGE", "VIDEO", "DOCUMENT", "GIF")
_FORMATS = ("TEXT", "LOCATION", "PRODUCT", *_MEDIA)
_MOST_OF_A_KIND = {
    "QUICK_REPLY": 10,
    "URL": 2,
    "PHONE_NUMBER": 1,
    "COPY_CODE": 1,
    "FLOW": 1,
    "CATALOG": 1,
    "MPM": 1,
    "SPM": 1,
    "OTP": 1,
    "VOICE_CALL": 1,
    "REQUEST_CONTACT_INFO": 1,
}
_OTP_TYPES = ("COPY_CODE", "ONE_TAP", "ZERO_TAP")
_WITHOUT_TEXT = ("COPY_CODE", "OTP", "REQUEST_CONTACT_INFO")  # Meta writes it, or has a default
_LANGUAGE = re.compile(r"([a-z]{2,3})(?:_[A-Z]{2})?")


def check(template: TemplateDefinition) -> list[Problem]:
    """Return everything Meta would refuse; nothing to mend is an empty list. Whether the name is taken, it knows."""
    problems = Problems()
    _check_envelope(problems, template)
    if template.is_authentication:
        _check_authentication(problems, template)
        return problems.found()
    if template.header:
        _check_header(problems.at("header"), template.header, template)
    if template.body:
        most = OFFER_BODY_MOST if template.offer else BODY_MOST
        _check_body(problems.at("body"), template.body, template, most)
    else:
        problems.at("body").add("missing", "A template needs a body.")
    if template.footer:
        _check_footer(problems.at("footer"), template.footer)
    _check_offer(problems, template)
    _check_buttons(problems.at("buttons"), template.buttons)
    _check_cards(problems.at("cards"), template)
    return problems.found()


def _check_envelope(problems: Problems, template: TemplateDefinition) -> None:
    check_name(problems.at("name"), template.name)
    language = _LANGUAGE.fullmatch(template.language)
    if language is None or language[1] not in LANGUAGES:
        problems.at("language").add("unsupported", "The language must be one WhatsApp has, such as en, en_GB or pt_BR.")
    problems.at("category").one_of(template.category, "The category", _CATEGORIES)
    if template.parameter_format is not None:
        problems.at("parameter_format").one_of(
            template.parameter_format, "The format of placeholders", (POSITIONAL, NAMED)
        )
    if template.ttl_s is not None and template.ttl_s != TTL_30_DAYS and template.category in TTL_S:
        least, most = TTL_S[template.category]
        problems.at("ttl_s").between(template.ttl_s, "The time to live in seconds", least=least, most=most)


def _check_header(at: Problems, header: Header, template: TemplateDefinition) -> None:
    at.at("format").one_of(header.format, "The header", _FORMATS)
    if header.format == "TEXT":
        written = header.text or ""
        at.at("text").text(written, "The header", HEADER_MOST)
        if "\n" in written:
            at.at("text").add("bad_format", "A header is a single line.")
        if len(placeholders(written)) > 1:
            at.at("text").add("too_many", "A header may have one placeholder.")
        _check_placeholders(at, written, header.examples, template)
    elif header.text:
        at.at("text").add("not_together", "A header is a text or a file, not both.")
    if header.format in _MEDIA and not header.handle:
        at.at("handle").add("missing", "A header with a file needs a sample of it, uploaded before.")
    if header.format == "GIF" and template.category != "MARKETING":
        at.at("format").add("not_allowed", "Only marketing templates take a GIF.")


def _check_body(at: Problems, body: Body, template: TemplateDefinition, most: int) -> None:
    written = body.text or ""
    at.at("text").text(written, "The body", most)
    _check_placeholders(at, written, body.examples, template)
    if starts_or_ends(written):
        at.at("text").add(
            "placeholder_at_edge", "A placeholder may not stand at the start or end; add words around it."
        )
    if has_neighbours(written):
        at.at("text").add("placeholders_adjacent", "Two placeholders may not stand side by side; put words between.")
    # Meta says "enough words" only; 2 for each placeholder and 1 more is what three vendors found by trying (Syniverse,
    # Mercuri, Maqsam; their help pages, read 2026-11-24).
    needed = 2 * len(placeholders(written)) + 1
    if placeholders(written) and template.language[:2] not in WITHOUT_SPACES and words_beside(written) < needed:
        at.at("text").add(
            "too_many_placeholders",
            f"Too many placeholders for so little text; it needs at least {needed} words besides them.",
        )


def _check_placeholders(at: Problems, written: str, examples: Mapping[str, str], template: TemplateDefinition) -> None:
    found = placeholders(written)
    text = at.at("text")
    if has_stray_braces(written):
        text.add("bad_placeholder", "A placeholder is a number or a name in double braces, such as {{1}}.")
    if template.is_named:
        if not all(is_name(placeholder) for placeholder in found):
            text.add("bad_placeholder", "This template names its placeholders, each of a-z, 0-9 and _: {{first_name}}.")
    elif not all(is_number(placeholder) for placeholder in found):
        text.add("bad_placeholder", "This template numbers its placeholders: {{1}}, {{2}} and so on.")
    elif sorted(found, key=int) != [str(number) for number in range(1, len(found) + 1)]:
        text.add("bad_placeholder", "Placeholders are numbered from {{1}} on without a gap.")
    without = [placeholder for placeholder in found if not examples.get(placeholder, "").strip()]
    if without:
        at.at("examples").add(
            "missing", f"WhatsApp wants a sample for each placeholder; {{{{{without[0]}}}}} has none."
        )
    if set(examples) - set(found):
        at.at("examples").add("too_many", "There are samples for placeholders the text does not have.")


def _check_footer(at: Problems, footer: Footer) -> None:
    at.at("text").text(footer.text or "", "The footer", FOOTER_MOST)
    if placeholders(footer.text or ""):
        at.at("text").add("not_allowed", "A footer has no placeholders.")
    if footer.code_expiration_minutes is not None:
        at.at("code_expiration_minutes").add("not_allowed", "Only authentication templates say when a code expires.")


def _check_offer(problems: Problems, template: TemplateDefinition) -> None:
    if template.offer is None:
        return
    problems.at("offer").at("text").text(template.offer.text, "The offer", OFFER_TEXT_MOST)
    if template.category != "MARKETING":
        problems.at("offer").add("not_allowed", "Only marketing templates make limited-time offers.")


def _check_buttons(at: Problems, buttons: tuple[Button, ...]) -> None:
    at.count(buttons, "buttons", least=0, most=BUTTONS_MOST)
    kinds = [button.type for button in buttons]
    for kind in dict.fromkeys(kinds):
        if kinds.count(kind) > _MOST_OF_A_KIND.get(kind, BUTTONS_MOST):
            at.add(
                "too_many", f"There are {kinds.count(kind)} {kind} buttons; WhatsApp allows {_MOST_OF_A_KIND[kind]}."
            )
    changes = sum(1 for a, b in pairwise(kinds) if (a == "QUICK_REPLY") != (b == "QUICK_REPLY"))
    if changes > 1:
        at.add("not_grouped", "Quick replies must stand together, all before or all after the other buttons.")
    for index, button in enumerate(buttons):
        _check_button(at.item(index), button)


def _check_button(at: Problems, button: Button) -> None:
    at.at("type").one_of(button.type, "The kind of button", tuple(_MOST_OF_A_KIND))
    if button.type == "OTP":
        at.at("type").add("not_allowed", "Only authentication templates have a button for a one-time password.")
    if button.type not in _WITHOUT_TEXT or button.text:
        at.at("text").text(button.text or "", "The button", BUTTON_TEXT_MOST)
    if button.type == "URL":
        _check_url(at, button)
    if button.type == "PHONE_NUMBER":
        at.at("phone_number").text(button.phone_number or "", "The phone number", PHONE_MOST)
    if button.type == "COPY_CODE":
        at.at("example").text(button.example or "", "The sample of the code", COUPON_MOST)
    if button.type == "FLOW" and sum(map(bool, (button.flow_id, button.flow_name, button.flow_json))) != 1:
        at.at("flow_id").add("missing", "Name the flow by its id, by its name or by its JSON, one of the three.")


def _check_url(at: Problems, button: Button) -> None:
    url = button.url or ""
    found = placeholders(url)
    at.at("url").url(re.sub(r"\{\{[^{}]*\}\}", "x", url), "The button's link")
    if len(url) > URL_MOST:
        at.at("url").add("too_long", f"The button's link has {len(url):,} characters; WhatsApp allows {URL_MOST:,}.")
    if len(found) > 1 or (found and not url.endswith(f"{{{{{found[0]}}}}}")):
        at.at("url").add("bad_placeholder", "A link may have one placeholder, at its end.")
    if found and not button.example:
        at.at("example").add("missing", "A link with a placeholder needs a sample of the whole link.")


def _check_cards(at: Problems, template: TemplateDefinition) -> None:
    cards = template.cards
    if not cards:
        return
    at.count(cards, "cards", least=CARDS_LEAST, most=CARDS_MOST)
    for index, card in enumerate(cards):
        inner = at.item(index)
        if card.header is None:
            inner.at("header").add("missing", "Each card needs a header.")
        elif card.header.format not in ("IMAGE", "VIDEO", "PRODUCT"):
            inner.at("header").at("format").add("not_allowed", "A card's header is an image, a video or a product.")
        else:
            _check_header(inner.at("header"), card.header, template)
        if card.body:
            inner.at("body").at("text").text(card.body.text or "", "The card's text", CARD_BODY_MOST)
            _check_placeholders(inner.at("body"), card.body.text or "", card.body.examples, template)
        _check_buttons(inner.at("buttons"), card.buttons)
    shapes = {
        (
            card.header.format if card.header else "",
            card.body is None,
            tuple(button.type for button in card.buttons),
        )
        for card in cards
    }
    if len(shapes) > 1:
        at.add("not_alike", "The cards must be alike: the same header, all with a text or none, the same buttons.")


def _check_authentication(problems: Problems, template: TemplateDefinition) -> None:
    """Meta writes body and footer itself; what is left to say is little."""
    if template.header or template.cards or template.offer:
        problems.at("header").add("not_allowed", "An authentication template has no header, cards or offer.")
    if template.body is None:
        problems.at("body").add("missing", "A template needs a body.")
    elif template.body.text:
        problems.at("body").at("text").add(
            "not_allowed", "WhatsApp writes the text of authentication templates itself."
        )
    if template.footer:
        if template.footer.text:
            problems.at("footer").at("text").add(
                "not_allowed", "WhatsApp writes this footer itself; say the minutes only."
            )
        least, most = EXPIRATION_MINUTES
        problems.at("footer").at("code_expiration_minutes").between(
            template.footer.code_expiration_minutes or 0, "The minutes until the code expires", least=least, most=most
        )
    if [button.type for button in template.buttons] != ["OTP"]:
        problems.at("buttons").add("missing", "An authentication template has exactly one button, of the kind OTP.")
    for index, button in enumerate(template.buttons):
        _check_otp(problems.at("buttons", index), button)


def _check_otp(at: Problems, button: Button) -> None:
    if button.type != "OTP":
        return
    at.at("otp_type").one_of(button.otp_type or "", "The kind of one-time password", _OTP_TYPES)
    at.at("text").optional_text(button.text, "The button", BUTTON_TEXT_MOST)
    at.at("autofill_text").optional_text(button.autofill_text, "The button", BUTTON_TEXT_MOST)
    if button.otp_type in ("ONE_TAP", "ZERO_TAP") and not button.supported_apps:
        at.at("supported_apps").add("missing", "This kind hands the code to an app; name the app and its signature.")
    if button.otp_type == "ZERO_TAP" and not button.zero_tap_terms_accepted:
        at.at("zero_tap_terms_accepted").add("missing", "Zero-tap templates need its terms accepted.")
