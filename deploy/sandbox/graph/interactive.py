"""What Meta takes as `interactive`: one function per kind, each refusing in Meta's words.

Source: Meta, messages/interactive-*-messages, read 2026-11-22; limits as in section 4.2 of the fact sheet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deploy.sandbox.graph.errors import Refused
from deploy.sandbox.graph.shapes import a_list, a_map, a_text, objects, only_keys

Check = Callable[[dict[str, Any], dict[str, Any]], None]


def check_interactive(content: dict[str, Any]) -> None:
    """Refuse what is not a valid interactive message (131008, 131009, 100)."""
    only_keys(content, ("type", "header", "body", "footer", "action"), "interactive")
    kind = a_text(content, "type", "interactive['type']")
    check = KINDS.get(kind)
    if check is None:
        raise Refused(131009, f"interactive['type']: {kind[:60]} is not a known interactive type.")
    if kind not in ("product", "call_permission_request") or "body" in content:  # these may do without
        body = a_map(content, "body", "interactive['body']")
        # Meta says 4,096 for lists and 1,024 for everything else.
        a_text(body, "text", "interactive['body']['text']", most=4_096 if kind == "list" else 1_024)
    if "footer" in content:
        a_text(a_map(content, "footer", "interactive['footer']"), "text", "interactive['footer']['text']", most=60)
    if "header" in content:
        _header(content["header"], kind)
    check(content, a_map(content, "action", "interactive['action']"))


def _header(header: Any, kind: str) -> None:
    if not isinstance(header, dict):
        raise Refused(100, "interactive['header'] must be an object.")
    if kind == "product":
        raise Refused(131009, "interactive['header'] is not allowed for product messages.")
    form = a_text(header, "type", "interactive['header']['type']")
    if form == "text":
        a_text(header, "text", "interactive['header']['text']", most=60)
    elif form in ("image", "video", "document"):
        if kind not in ("button", "cta_url", "flow"):
            raise Refused(131009, f"interactive['header']['type']: {form} is not allowed with {kind}.")
        media = a_map(header, form, f"interactive['header']['{form}']")
        if not media.get("id") and not media.get("link"):
            raise Refused(131008, f"interactive['header']['{form}'] needs an id or a link.")
    else:
        raise Refused(131009, f"interactive['header']['type']: {form[:40]} is not a header type.")


def _button(_: dict[str, Any], action: dict[str, Any]) -> None:
    buttons = a_list(action, "buttons", "interactive['action']['buttons']", most=3)
    ids, titles = set(), set()
    for button in buttons:
        if not isinstance(button, dict) or button.get("type") != "reply":
            raise Refused(131009, "Button type must be reply.")
        reply = a_map(button, "reply", "button['reply']")
        ids.add(a_text(reply, "id", "Button id", most=256))
        titles.add(a_text(reply, "title", "Button title", most=20))
    if len(ids) < len(buttons) or len(titles) < len(buttons):
        raise Refused(131009, "Button ids and titles must be unique.")


def _list(_: dict[str, Any], action: dict[str, Any]) -> None:
    a_text(action, "button", "interactive['action']['button']", most=20)
    sections = a_list(action, "sections", "interactive['action']['sections']", most=10)
    ids: list[str] = []
    for section in objects(sections, "sections"):
        if len(sections) > 1 or section.get("title"):
            a_text(section, "title", "Section title", most=24)
        for row in objects(a_list(section, "rows", "Section rows", most=10), "rows"):
            ids.append(a_text(row, "id", "Row id", most=200))
            a_text(row, "title", "Row title", most=24)
            if "description" in row:
                a_text(row, "description", "Row description", least=0, most=72)
    if len(ids) > 10:
        raise Refused(131009, "Total row count exceed max allowed count: 10")
    if len(set(ids)) < len(ids):
        raise Refused(131009, "Duplicated row id.")


def _cta_url(_: dict[str, Any], action: dict[str, Any]) -> None:
    _named(action, "cta_url")
    parameters = a_map(action, "parameters", "interactive['action']['parameters']")
    a_text(parameters, "display_text", "display_text", most=20)
    if not a_text(parameters, "url", "url", most=2_000).startswith(("http://", "https://")):
        raise Refused(131009, "url must start with http:// or https://.")


def _location_request(_: dict[str, Any], action: dict[str, Any]) -> None:
    _named(action, "send_location")


def _flow(_: dict[str, Any], action: dict[str, Any]) -> None:
    _named(action, "flow")
    parameters = a_map(action, "parameters", "interactive['action']['parameters']")
    if parameters.get("flow_message_version") != "3":
        raise Refused(131009, "flow_message_version must be 3.")
    if not parameters.get("flow_id") and not parameters.get("flow_name"):
        raise Refused(131008, "One of flow_id and flow_name is required.")
    a_text(parameters, "flow_cta", "flow_cta", most=30)
    if parameters.get("mode", "published") not in ("draft", "published"):
        raise Refused(131009, "mode must be draft or published.")
    if parameters.get("flow_action", "navigate") not in ("navigate", "data_exchange"):
        raise Refused(131009, "flow_action must be navigate or data_exchange.")
    if "flow_action_payload" in parameters:
        a_text(a_map(parameters, "flow_action_payload", "flow_action_payload"), "screen", "screen", most=256)


def _product(_: dict[str, Any], action: dict[str, Any]) -> None:
    a_text(action, "catalog_id", "catalog_id")
    a_text(action, "product_retailer_id", "product_retailer_id")


def _product_list(content: dict[str, Any], action: dict[str, Any]) -> None:
    if content.get("header", {}).get("type") != "text":
        raise Refused(131008, "interactive['header'] of type text is required for a product list.")
    a_text(action, "catalog_id", "catalog_id")
    count = 0
    for section in objects(a_list(action, "sections", "interactive['action']['sections']", most=10), "sections"):
        a_text(section, "title", "Section title", most=24)
        items = objects(a_list(section, "product_items", "product_items", most=30), "product_items")
        for item in items:
            a_text(item, "product_retailer_id", "product_retailer_id")
        count += len(items)
    if count > 30:
        raise Refused(131009, "Total product count exceed max allowed count: 30")


def _carousel(_: dict[str, Any], action: dict[str, Any]) -> None:
    cards = a_list(action, "cards", "interactive['action']['cards']", most=10)
    if len(cards) < 2:
        raise Refused(131009, "A carousel has 2 to 10 cards.")
    for at, card in enumerate(cards):
        if not isinstance(card, dict) or card.get("card_index") != at:
            raise Refused(131009, "card_index must count from 0.")
        if card.get("type") not in ("cta_url", "product"):
            raise Refused(131009, "A card's type is cta_url or product.")
        if "body" in card:
            text = a_text(a_map(card, "body", "card body"), "text", "Card body", most=160)
            if text.count("\n") > 2:
                raise Refused(131009, "Card body: at most 2 line breaks.")
        a_map(card, "action", "card['action']")


def _named(action: dict[str, Any], name: str) -> None:
    if action.get("name") != name:
        raise Refused(131009, f"interactive['action']['name'] must be {name}.")


KINDS: dict[str, Check] = {
    "button": _button,
    "list": _list,
    "cta_url": _cta_url,
    "location_request_message": _location_request,
    "flow": _flow,
    "product": _product,
    "product_list": _product_list,
    "catalog_message": lambda _, action: _named(action, "catalog_message"),
    "carousel": _carousel,
    "address_message": lambda _, action: _named(action, "address_message"),
    "call_permission_request": lambda _, action: _named(action, "call_permission_request"),
    # Meta's page and pywa disagree on the type's name; both are taken until someone has tried.
    "contact_request": lambda _, action: _named(action, "request_contact_info"),
    "request_contact_info": lambda _, action: _named(action, "request_contact_info"),
}
