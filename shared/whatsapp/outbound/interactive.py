"""Messages a customer answers by tapping: buttons, a list, a link, a flow, a question for their place or number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from shared.whatsapp.outbound.header import ANY_HEADER, Header, check_around, interactive
from shared.whatsapp.outbound.part import Part, given
from shared.whatsapp.problems import Problems
from shared.whatsapp.wire import Json

BUTTONS_MOST = 3
BUTTON_TITLE_MOST = 20
BUTTON_ID_MOST = 256
SECTIONS_MOST = 10
ROWS_MOST = 10  # over all sections
SECTION_TITLE_MOST = 24
ROW_TITLE_MOST = 24
ROW_DESCRIPTION_MOST = 72
ROW_ID_MOST = 200
LIST_BODY_MOST = 4096  # Meta's page; courier cuts every interactive body at 1,024
FLOW_CTA_MOST = 30  # courier and Meta's OpenAPI; older pages say 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyButton(Part):
    """id: comes back to us when tapped, unseen by the customer."""

    id: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Buttons(Part):
    body: str
    buttons: tuple[ReplyButton, ...]
    header: Header | None = None
    footer: str | None = None
    type: Literal["button"] = "button"

    def check(self, problems: Problems) -> None:
        if self.header:
            self.header.check(problems.at("header"), ANY_HEADER)
        check_around(problems, body=self.body, footer=self.footer)
        problems.at("buttons").count(self.buttons, "buttons", least=1, most=BUTTONS_MOST)
        for index, button in enumerate(self.buttons):
            at = problems.at("buttons", index)
            at.at("id").identifier(button.id, "The button's id", BUTTON_ID_MOST)
            at.at("title").text(button.title, "The button", BUTTON_TITLE_MOST)
        problems.at("buttons").unique((button.id for button in self.buttons), "button ids")
        problems.at("buttons").unique((button.title for button in self.buttons), "button titles")

    def graph(self) -> Json:
        buttons = [{"type": "reply", "reply": {"id": b.id, "title": b.title}} for b in self.buttons]
        return interactive("button", {"buttons": buttons}, header=self.header, body=self.body, footer=self.footer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Part):
    id: str
    title: str
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(Part):
    """title: needed as soon as there is more than one section."""

    rows: tuple[Row, ...]
    title: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class List(Part):
    """button: what opens the list."""

    body: str
    button: str
    sections: tuple[Section, ...]
    header: Header | None = None
    footer: str | None = None
    type: Literal["list"] = "list"

    def check(self, problems: Problems) -> None:
        if self.header:
            self.header.check(problems.at("header"), ("text",))
        check_around(problems, body=self.body, footer=self.footer, body_most=LIST_BODY_MOST)
        problems.at("button").text(self.button, "The button", BUTTON_TITLE_MOST)
        check_section_titles(problems, [section.title for section in self.sections])
        rows = [row for section in self.sections for row in section.rows]
        problems.at("sections").count(rows, "rows in all sections together", least=0, most=ROWS_MOST)
        problems.at("sections").unique((row.id for row in rows), "row ids")
        for number, section in enumerate(self.sections):
            at = problems.at("sections", number)
            if not section.rows:
                at.at("rows").add("too_few", "This section has no rows; WhatsApp wants at least one.")
            for index, row in enumerate(section.rows):
                _check_row(at.at("rows", index), row)

    def graph(self) -> Json:
        sections = [
            {
                **given(title=section.title),
                "rows": [given(id=row.id, title=row.title, description=row.description) for row in section.rows],
            }
            for section in self.sections
        ]
        action = {"button": self.button, "sections": sections}
        return interactive("list", action, header=self.header, body=self.body, footer=self.footer)


def _check_row(at: Problems, row: Row) -> None:
    at.at("id").identifier(row.id, "The row's id", ROW_ID_MOST)
    at.at("title").text(row.title, "The row's title", ROW_TITLE_MOST)
    at.at("description").optional_text(row.description, "The row's description", ROW_DESCRIPTION_MOST)


def check_section_titles(problems: Problems, titles: list[str | None]) -> None:
    """Check how many sections there are, and that each has a title as soon as there are several."""
    problems.at("sections").count(titles, "sections", least=1, most=SECTIONS_MOST)
    for number, title in enumerate(titles):
        at = problems.at("sections", number).at("title")
        if not title and len(titles) > 1:
            at.add("missing", "With more than one section each needs a title.")
        at.optional_text(title, "The section's title", SECTION_TITLE_MOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallToAction(Part):
    """A button that opens a link."""

    body: str
    display_text: str
    url: str
    header: Header | None = None
    footer: str | None = None
    type: Literal["cta_url"] = "cta_url"

    def check(self, problems: Problems) -> None:
        if self.header:
            self.header.check(problems.at("header"), ANY_HEADER)
        check_around(problems, body=self.body, footer=self.footer)
        problems.at("display_text").text(self.display_text, "The button", BUTTON_TITLE_MOST)
        problems.at("url").url(self.url, "The button's link")

    def graph(self) -> Json:
        action = cta_action(self.display_text, self.url)
        return interactive("cta_url", action, header=self.header, body=self.body, footer=self.footer)


def cta_action(display_text: str, url: str) -> Json:
    return {"name": "cta_url", "parameters": {"display_text": display_text, "url": url}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow(Part):
    """Opens a WhatsApp Flow, named by exactly one of `flow_id` and `flow_name`.

    flow_token: ours, comes back with the answer. screen, data: the first screen and what it is shown, for `navigate`
    only (with `data_exchange` our endpoint says which).
    """

    body: str
    flow_cta: str
    flow_id: str | None = None
    flow_name: str | None = None
    flow_token: str | None = None
    mode: Literal["draft", "published"] | None = None
    flow_action: Literal["navigate", "data_exchange"] | None = None
    screen: str | None = None
    data: dict[str, Any] | None = None
    header: Header | None = None
    footer: str | None = None
    type: Literal["flow"] = "flow"

    def check(self, problems: Problems) -> None:
        if self.header:
            self.header.check(problems.at("header"), ANY_HEADER)
        check_around(problems, body=self.body, footer=self.footer)
        problems.at("flow_cta").text(self.flow_cta, "The button", FLOW_CTA_MOST)
        if bool(self.flow_id) == bool(self.flow_name):
            code = "not_together" if self.flow_id else "missing"
            problems.at("flow_id").add(code, "Name the flow by its id or by its name, one of the two.")
        if self.flow_action == "data_exchange" and (self.screen or self.data is not None):
            problems.at("screen").add("not_together", "With data_exchange the endpoint names the first screen, not we.")
        if self.data is not None and not self.screen:
            problems.at("screen").add("missing", "Data for a first screen needs that screen's name.")

    def graph(self) -> Json:
        payload = given(screen=self.screen, data=self.data) if self.screen else None
        parameters = {
            "flow_message_version": "3",
            **given(
                flow_id=self.flow_id,
                flow_name=self.flow_name,
                flow_token=self.flow_token,
                flow_cta=self.flow_cta,
                mode=self.mode,
                flow_action=self.flow_action,
                flow_action_payload=payload,
            ),
        }
        action = {"name": "flow", "parameters": parameters}
        return interactive("flow", action, header=self.header, body=self.body, footer=self.footer)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationRequest(Part):
    """Asks for the customer's place; the answer is a location message."""

    body: str
    type: Literal["location_request_message"] = "location_request_message"

    def check(self, problems: Problems) -> None:
        check_around(problems, body=self.body)

    def graph(self) -> Json:
        return interactive(self.type, {"name": "send_location"}, body=self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactRequest(Part):
    """Asks somebody we know by user name for their phone number."""

    body: str
    type: Literal["contact_request"] = "contact_request"

    def check(self, problems: Problems) -> None:
        check_around(problems, body=self.body)

    def graph(self) -> Json:
        return interactive(self.type, {"name": "request_contact_info"}, body=self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPermissionRequest(Part):
    """Asks whether we may call."""

    body: str | None = None
    type: Literal["call_permission_request"] = "call_permission_request"

    def check(self, problems: Problems) -> None:
        check_around(problems, body=self.body, needs_body=False)

    def graph(self) -> Json:
        return interactive(self.type, {"name": "call_permission_request"}, body=self.body)
