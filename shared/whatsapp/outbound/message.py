"""Any content, to anybody: what can be wrong with the whole, and the request body for `POST /<number>/messages`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shared.whatsapp.outbound.contacts import Contacts
from shared.whatsapp.outbound.interactive import (
    Buttons,
    CallPermissionRequest,
    CallToAction,
    ContactRequest,
    Flow,
    List,
    LocationRequest,
)
from shared.whatsapp.outbound.location import Location
from shared.whatsapp.outbound.media import Audio, Document, Image, Sticker, Video
from shared.whatsapp.outbound.part import Part, given
from shared.whatsapp.outbound.products import Carousel, Catalog, Product, ProductList
from shared.whatsapp.outbound.reaction import Reaction
from shared.whatsapp.outbound.template import FileValue, Template, TextValue
from shared.whatsapp.outbound.text import Text
from shared.whatsapp.problems import Problem, Problems
from shared.whatsapp.wire import Json, bsuid, phone

CALLBACK_DATA_MOST = 512

Interactive = (
    Buttons
    | List
    | CallToAction
    | Flow
    | LocationRequest
    | ContactRequest
    | CallPermissionRequest
    | Product
    | ProductList
    | Catalog
    | Carousel
)
Content = Text | Image | Audio | Video | Document | Sticker | Location | Contacts | Reaction | Interactive | Template

_IN_GROUPS = (Text, Image, Audio, Video, Document, Sticker)  # and templates of text and media
_IN_GROUPS_BUTTONS = {"quick_reply", "url", "copy_code"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone(Part):
    """number: with its country code; without one Meta would take the business's own."""

    number: str
    kind: Literal["phone"] = "phone"

    def digits(self) -> str | None:
        """Return the digits alone, or None where it is no phone number; people write blanks, dots and brackets."""
        return phone("".join(character for character in self.number if character not in " -.()/\u00a0"))

    def check(self, problems: Problems) -> None:
        if self.digits() is None:
            problems.at("number").add("bad_format", "A phone number is its country code and 5 to 20 digits in all.")

    def graph(self) -> Json:
        return {"recipient_type": "individual", "to": f"+{self.digits() or self.number}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bsuid(Part):
    """A customer's business-scoped user id, for those whose phone number we do not know."""

    user_id: str
    kind: Literal["bsuid"] = "bsuid"

    def check(self, problems: Problems) -> None:
        if bsuid(self.user_id) is None:
            problems.at("user_id").add("bad_format", "This is not a WhatsApp user id.")

    def graph(self) -> Json:
        return {"recipient_type": "individual", "recipient": self.user_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Part):
    group_id: str
    kind: Literal["group"] = "group"

    def check(self, problems: Problems) -> None:
        problems.at("group_id").identifier(self.group_id, "The group's id")

    def graph(self) -> Json:
        return {"recipient_type": "group", "to": self.group_id}


Recipient = Phone | Bsuid | Group


def message_type(content: Content) -> str:
    """Return Meta's type of the message: all that is tapped is `interactive`."""
    written: str = content.graph()["type"]
    return written


def check(
    content: Content,
    *,
    to: Recipient | None = None,
    reply_to: str | None = None,
    callback_data: str | None = None,
) -> list[Problem]:
    """Return everything Meta would refuse, all at once; nothing to mend is an empty list.

    Fields are paths in the content; those of the envelope start with `to`, `reply_to` or `callback_data`.
    Not checked: the reply window, and whether values fit their template (`shared.whatsapp.templates.fill`).
    """
    problems = Problems()
    content.check(problems)
    if to is not None:
        to.check(problems.at("to"))
    if isinstance(to, Group) and not _may_go_to_a_group(content):
        problems.add("not_in_groups", "A group takes texts, files, and templates of text and media; nothing else.")
    if reply_to is not None:
        problems.at("reply_to").identifier(reply_to, "The message replied to")
        if isinstance(content, Reaction):
            problems.at("reply_to").add(
                "not_together", "A reaction names its message itself; it cannot be a reply too."
            )
    if callback_data is not None:
        problems.at("callback_data").text(callback_data, "The callback data", CALLBACK_DATA_MOST)
    return problems.found()


def _may_go_to_a_group(content: Content) -> bool:
    if isinstance(content, Template):
        return (
            (content.header is None or isinstance(content.header, TextValue | FileValue))
            and not content.cards
            and content.offer_expires_at_ms is None
            and all(button.type in _IN_GROUPS_BUTTONS for button in content.buttons)
        )
    return isinstance(content, _IN_GROUPS) and not (isinstance(content, Text) and content.direct_send)


def to_graph(
    content: Content,
    *,
    to: Recipient,
    reply_to: str | None = None,
    callback_data: str | None = None,
    identity_hash: str | None = None,
) -> Json:
    """Return the request body.

    reply_to: the wamid quoted. callback_data: comes back in every status (our message id, which settles a send whose
    answer was lost). identity_hash: Meta refuses (137000) when the person's identity changed since.
    Expects what `check` let pass.
    """
    return {
        "messaging_product": "whatsapp",
        **to.graph(),
        **content.graph(),
        **given(
            context={"message_id": reply_to} if reply_to else None,
            biz_opaque_callback_data=callback_data,
            recipient_identity_key_hash=identity_hash,
        ),
    }


def to_marketing_graph(
    template: Template,
    *,
    to: Phone,
    product_policy: Literal["CLOUD_API_FALLBACK", "STRICT"] | None = None,
    shares_activity: bool | None = None,
    callback_data: str | None = None,
) -> Json:
    """Return the body for `POST /<number>/marketing_messages`, which takes marketing templates only."""
    return to_graph(template, to=to, callback_data=callback_data) | given(
        product_policy=product_policy, message_activity_sharing=shares_activity
    )
