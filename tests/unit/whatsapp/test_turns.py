"""Messages, echoes and history: each fixture's whole event, then what Meta may do differently."""

from __future__ import annotations

from typing import Any

import pytest

from shared.whatsapp.events import (
    ContactFact,
    Edit,
    Event,
    IdentityChange,
    Kept,
    Media,
    Message,
    Person,
    Reaction,
    Revoke,
)
from tests.unit.whatsapp.bodies import (
    COLE,
    IFEOMA,
    KESTREL,
    LEILA,
    MAREN,
    TOMAS,
    at,
    only,
    parsed,
    read,
    reasons,
    text,
    value_of,
)

SENT_AT = at(1795183200)


def message(name: str, person: Person = MAREN, **differs: Any) -> tuple[str, Event]:
    """A fixture, and what most of them are: a live inbound message from Maren."""
    sent = value_of(name)["messages"][0]
    usual: dict[str, Any] = {
        "change": 0,
        "item": 0,
        "wamid": sent["id"],
        "direction": "inbound",
        "origin": "live",
        "content": None,
        "payload": sent,
        "sent_at": SENT_AT,
        "person": person,
        "reply_to_wamid": sent.get("context", {}).get("id"),
    }
    return name, Message(**(usual | differs))


def wamid(name: str, listed: str = "messages") -> str:
    found: str = value_of(name)[listed][0]["id"]
    return found


SEAM = Media(
    "7672117321631716",
    "image",
    "image/jpeg",
    "94987e0761426af860c626187a441cf4ece86e6bed36b43856cb805e0e3ec99b",
)

# The originals that reactions, edits and revokes of the fixtures are about.
REACTED_TO = "wamid.HBgLMTIwMjU1NTAxMTcVAgARGBJEODFERkUwMDRFMzFENjRENjYA"
BY_STAFF = "wamid.HBgLMTIwMjU1NTAxMTcVAgARGBIxM0EzRUM4MDVBQjI0N0ZBNUIA"

LIVE = [
    message("text.json", message_type="text", content="Hi, is the 12 L dry bag back in stock?"),
    message("text_legacy_phone_only.json", Person(None, "12025550117", name="Maren Holt"), message_type="text",
            content=value_of("text_legacy_phone_only.json")["messages"][0]["text"]["body"]),
    message("text_group.json", TOMAS, message_type="text", content="Who is bringing the stove?",
            group_id="Y2FwZS1tYXktcGFkZGxlLTIwMjY"),
    message("text_bsuid_parent.json",
            Person("US.6038851290047713", None, "US.ENT.30118846209571", "Juno Vance", "juno_v"),
            message_type="text", content="Is this the London team too?"),
    message("text_bsuid_only.json", KESTREL, message_type="text",
            content=value_of("text_bsuid_only.json")["messages"][0]["text"]["body"]),
    message("image.json", message_type="image", content="The torn seam", media=SEAM),
    message("audio_voice.json", IFEOMA, message_type="audio",
            media=Media("7148675253961129", "audio", "audio/ogg; codecs=opus",
                        "20deb89e72986384630d79c8fa6299229d64842d1d5550ab5df1c2b43fb217cf", is_voice=True)),
    message("audio_file.json", IFEOMA, message_type="audio",
            media=Media("7306459591702018", "audio", "audio/mpeg",
                        "43c0ff8a7a70cb83261d38a657b29a829ff512883df4fdf54a3514e8dc5fbb28")),
    message("video.json", LEILA, message_type="video", content="Voilà le bruit",
            media=Media("7596828989187347", "video", "video/mp4",
                        "83f352dd9a2e100fea4d41d68483f8b63a88ebee91ad1afcfb25f301d67a1090")),
    message("audio_legacy_voice_type.json", message_type="audio",
            media=Media("7115464708157991", "audio", "audio/ogg; codecs=opus",
                        "ff46b578de970561b37b5f68a6b6f86cab8c0424bc0a6f99591a82ee324c0d06", is_voice=True)),
    message("document.json", COLE, message_type="document", content="Signed form",
            media=Media("7822490423063010", "document", "application/pdf",
                        "122f217d9c55a342b66f779f70ed663437f0c2c7216b14242c148d73ba60edba",
                        "rental agreement (final).pdf")),
    message("sticker_animated.json", message_type="sticker",
            media=Media("7445090473063991", "sticker", "image/webp",
                        "62673a604d240d8ca3978ebc52dd9743e998f17b79f2bf977ec55d57edda98c9", is_animated=True)),
    message("image_with_media_error.json", TOMAS, message_type="image"),
    message("location_pin.json", TOMAS, message_type="location", content="38.9784, -76.4922"),
    message("location_place.json", TOMAS, message_type="location",
            content="City Dock Boat Ramp, 1 Dock St, Annapolis, MD 21401"),
    message("contacts_single.json", message_type="contacts", content="Odile Fontaine"),
    message("contacts_many_vcard.json", message_type="contacts", content="Dr. Anselm K. Rowe Jr., Boatyard"),
    message("contacts_request_reply.json", KESTREL, message_type="contacts", content="+1 202-555-0195"),
    message("contacts_without_name.json", TOMAS, message_type="contacts", content="+1 202-555-0139"),
    message("interactive_button_reply.json", message_type="interactive", content="Confirm booking"),
    message("interactive_list_reply.json", message_type="interactive",
            content="Tue 24 Nov, 10:00: Beginner kayak, 2 h"),
    message("interactive_list_reply_no_description.json", message_type="interactive", content="Repairs"),
    message("interactive_nfm_reply_flow.json", IFEOMA, message_type="interactive", content="Sent"),
    message("interactive_nfm_reply_bad_json.json", IFEOMA, message_type="interactive", content="Sent"),
    message("interactive_nfm_reply_address.json", TOMAS, message_type="interactive",
            content="14 Quarry Lane\nFrederick"),
    message("interactive_call_permission_accept.json", message_type="interactive", content="accept"),
    message("interactive_call_permission_reject.json", message_type="interactive", content="reject"),
    message("interactive_unknown_subtype.json", message_type="interactive"),
    message("button_template_quick_reply.json", COLE, message_type="button", content="Stop promos"),
    message("button_did_not_request_code.json", COLE, message_type="button", content="I didn't request a code"),
    message("order.json", IFEOMA, message_type="order", content="Please gift-wrap the mug"),
    message("unsupported_with_type.json", COLE, message_type="unsupported"),
    message("unsupported_legacy_no_subtype.json", COLE, message_type="unsupported"),
    message("unknown_future_message_type.json", message_type="unknown"),
    message("malformed_type_missing.json", message_type="unknown"),
    message("malformed_text_object_missing.json", message_type="text"),
    message("malformed_text_body_number.json", message_type="text", content="42"),
    message("malformed_user_id_not_bsuid.json", Person(None, "12025550117", name="Odd"), message_type="text",
            content="odd id"),
]  # fmt: skip

ABOUT_ANOTHER: list[tuple[str, Event]] = [
    ("reaction_add.json", Reaction(0, 0, wamid("reaction_add.json"), REACTED_TO, "❤️", "inbound", SENT_AT, MAREN)),
    ("reaction_remove_empty.json",
     Reaction(0, 0, wamid("reaction_remove_empty.json"), REACTED_TO, "", "inbound", at(1795183221), MAREN)),
    ("reaction_remove_key_absent.json",
     Reaction(0, 0, wamid("reaction_remove_key_absent.json"), REACTED_TO, "", "inbound", at(1795183220), MAREN)),
    ("edit_text.json",
     Edit(0, 0, wamid("edit_text.json"), wamid("text.json"), "Hi, is the 20 L dry bag back in stock?",
          value_of("edit_text.json")["messages"][0]["edit"]["message"], "inbound", at(1795183320), MAREN)),
    ("edit_image_caption.json",
     Edit(0, 0, wamid("edit_image_caption.json"), wamid("image.json"), "The torn seam (left side)",
          value_of("edit_image_caption.json")["messages"][0]["edit"]["message"], "inbound", at(1795183330), MAREN)),
    ("revoke.json", Revoke(0, 0, wamid("revoke.json"), wamid("text.json"), "inbound", at(1795183400), MAREN)),
    ("request_welcome.json", Kept(0, 0, "request_welcome", SENT_AT)),
]  # fmt: skip

IDENTITY: list[tuple[str, Event]] = [
    ("system_user_changed_number.json",
     IdentityChange(0, 0, wamid("system_user_changed_number.json"), at(1795183240),
                    Person("US.7702215590143386", "12025550199"), "US.4471902683351774", "12025550117")),
    ("system_user_changed_number_without_previous_id.json",
     IdentityChange(0, 0, wamid("system_user_changed_number_without_previous_id.json"), at(1795183241),
                    Person("US.2290134477881006", "12025550164"), None, "12025550162")),
    ("system_user_changed_user_id.json",
     IdentityChange(0, 0, wamid("system_user_changed_user_id.json"), at(1795183250),
                    Person("US.5571093382640917", None), "US.9120047736618250", None)),
    ("system_legacy_customer_changed_number.json",
     IdentityChange(0, 0, wamid("system_legacy_customer_changed_number.json"), at(1795183261),
                    Person(None, "61491570156"), None, "61491570006")),
    ("system_customer_identity_changed.json",
     ContactFact(0, 0, "identity_hash", "TmV3S2V5SGFzaA", at(1795183260), LEILA,
                 value_of("system_customer_identity_changed.json")["messages"][0])),
    ("system_customer_identity_changed_no_contacts.json",
     ContactFact(0, 0, "identity_hash", "TmV3S2V5SGFzaA", at(1795183260), Person(LEILA.user_id, LEILA.wa_id),
                 value_of("system_customer_identity_changed_no_contacts.json")["messages"][0])),
]  # fmt: skip


def echo(name: str, person: Person = MAREN, **differs: Any) -> tuple[str, Event]:
    sent = value_of(name)["message_echoes"][0]
    usual: dict[str, Any] = {"change": 0, "item": 0, "wamid": sent["id"], "direction": "outbound", "person": person}
    return name, Message(**(usual | {"origin": "app", "payload": sent} | differs))


ECHOES: list[tuple[str, Event]] = [
    echo("smb_message_echoes_text.json", message_type="text", content="Sure, we'll put it aside until Friday.",
         sent_at=at(1795183215)),
    echo("smb_message_echoes_bsuid_image.json", KESTREL, message_type="image", content="cedar paddle",
         sent_at=at(1795183216),
         media=Media("7564163258135981", "image", "image/jpeg",
                     "7cba824311e0d9e258de9bc30596f912b3c2653113245903bc102df68e6ee2fa")),
    ("smb_message_echoes_edit.json",
     Edit(0, 0, wamid("smb_message_echoes_edit.json", "message_echoes"), BY_STAFF,
          "Sure, we'll put it aside until Saturday.",
          value_of("smb_message_echoes_edit.json")["message_echoes"][0]["edit"]["message"],
          "outbound", at(1795183235), MAREN)),
    ("smb_message_echoes_revoke.json",
     Revoke(0, 0, wamid("smb_message_echoes_revoke.json", "message_echoes"), BY_STAFF,
            "outbound", at(1795183240), Person(MAREN.user_id, MAREN.wa_id))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"), [*LIVE, *ABOUT_ANOTHER, *IDENTITY, *ECHOES], ids=lambda value: str(value)[:60]
)
def test_a_fixture_is_exactly_this_event(name: str, expected: Event) -> None:
    body = parsed(name)

    assert body.events[0] == expected
    assert body.quarantined == ()


# --- history ----------------------------------------------------------------------------------------------------------


def past(place: int, sent: dict[str, Any], **differs: Any) -> Message:
    usual: dict[str, Any] = {
        "change": 0,
        "item": place,
        "wamid": sent["id"],
        "direction": "inbound",
        "origin": "history",
        "message_type": sent["type"],
        "content": None,
        "payload": sent,
        "sent_at": at(int(sent["timestamp"])),
    }
    return Message(**(usual | differs))


def test_history_is_read_in_both_directions_each_thread_with_its_person() -> None:
    maren = Person(MAREN.user_id, MAREN.wa_id)
    kestrel = Person(KESTREL.user_id, None, username="kestrel.makes")
    first, second = (thread["messages"] for thread in value_of("history_chunk.json")["history"][0]["threads"])

    assert parsed("history_chunk.json").events == (
        past(0, first[0], content="Do you rent SUPs?", person=maren),
        past(1, first[1], content="Yes, from 8 am.", person=maren, direction="outbound", status="read"),
        past(2, first[2], person=maren, direction="outbound", status="played"),
        past(3, second[0], content="is the cedar one left?", person=kestrel),
    )


def test_a_file_that_follows_its_placeholder_need_not_say_to_whom_it_went() -> None:
    [sent] = value_of("history_media_followup.json")["messages"]
    media = Media(
        "7579806251924608",
        "image",
        "image/jpeg",
        "802fdef3d884e0f4789cea870d6a040100488be1be13e9957b6ac53b191ab621",
    )

    assert only(parsed("history_media_followup.json")) == past(
        0, sent, content="price list", media=media, direction="outbound", person=None
    )


def test_a_customers_file_that_follows_is_theirs() -> None:
    event = only(read({"messages": [text()]}, field="history"))

    assert isinstance(event, Message)
    assert (event.direction, event.origin, event.person) == ("inbound", "history", Person(None, "12025550117"))


def thread(*messages: dict[str, Any], **about: Any) -> dict[str, Any]:
    return {"history": [{"threads": [about | {"messages": list(messages)}]}]}


@pytest.mark.parametrize(
    ("about", "message", "expected"),
    [
        ({"id": "12025550117"}, text(), Person(None, "12025550117")),
        ({"id": "12025550117"}, text(from_user_id="US.1"), Person("US.1", "12025550117")),
        ({"context": {"user_id": "US.1"}}, text(), Person("US.1", "12025550117")),
        ({"context": {"user_id": "US.1"}}, text(from_user_id="US.2"), Person("US.1", None)),
        ({"context": {"wa_id": "12025550117"}, "id": "12025550118"}, text(), Person(None, "12025550117")),
        ({}, text(), Person(None, "12025550117")),
        ({}, text(**{"from": "12025550143", "to": "12025550119"}), Person(None, "12025550119")),
        ({}, text(**{"from": None, "to": None, "to_user_id": "US.9"}), Person("US.9", None)),
    ],
)
def test_a_thread_and_its_messages_name_the_person_together(
    about: dict[str, Any], message: dict[str, Any], expected: Person
) -> None:
    event = only(read(thread(message, **about), field="history"))

    assert isinstance(event, Message)
    assert event.person == expected


@pytest.mark.parametrize("ours", ["12025550143", "+12025550143"])
def test_our_own_number_is_ours_however_meta_shows_it(ours: str) -> None:
    value = thread(text(**{"from": ours}), id="12025550117") | {
        "metadata": {"phone_number_id": "1", "display_phone_number": "+1 (202) 555-0143"}
    }

    event = only(read(value, field="history"))

    assert isinstance(event, Message)
    assert event.direction == "outbound"


def test_a_message_to_our_number_is_inbound() -> None:
    event = only(read(thread(text(to="12025550143")), field="history"))

    assert isinstance(event, Message)
    assert event.direction == "inbound"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        *(("SENT", "sent"), ("DELIVERED", "delivered"), ("READ", "read"), ("PLAYED", "played"), ("ERROR", "failed")),
        *(("PENDING", "queued"), ("read", "read"), ("FUTURE", None), (None, None), (7, None)),
    ],
)
def test_what_became_of_an_old_message_of_ours_is_said_in_our_words(said: object, status: str | None) -> None:
    sent = text(**{"from": "12025550143"}, history_context={"status": said})

    event = only(read(thread(sent, id="12025550117"), field="history"))

    assert isinstance(event, Message)
    assert event.status == status


def test_history_without_anyone_is_set_aside() -> None:
    body = read(thread(text(**{"from": None})), field="history")

    assert reasons(body) == ["message_without_sender"]


def test_an_old_system_message_joins_nobody() -> None:
    old = text(type="system", system={"type": "user_changed_number", "wa_id": "12025550199"})

    assert only(read(thread(old, id="12025550117"), field="history")) == Kept(0, 0, "system", at(1763802000))


# --- what an element may lack -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["reaction", "edit", "revoke"])
@pytest.mark.parametrize("said", [None, {}, "x", {"message_id": "", "original_message_id": "x" * 600}])
def test_what_is_about_another_message_must_say_which(kind: str, said: object) -> None:
    assert reasons(read({"messages": [text(type=kind, **{kind: said})]})) == [f"{kind}_without_target"]


@pytest.mark.parametrize("nested", [None, "x", []])
def test_an_edit_without_a_message_empties_nothing(nested: object) -> None:
    edit = {"original_message_id": "wamid.0", "message": nested}

    assert reasons(read({"messages": [text(type="edit", edit=edit)]})) == ["edit_without_message"]


@pytest.mark.parametrize("kind", ["text", "reaction", "edit", "revoke"])
def test_a_message_from_nobody_is_set_aside(kind: str) -> None:
    assert reasons(read({"messages": [text(type=kind, **{"from": "nobody"})]})) == ["message_without_sender"]


def test_an_echo_to_nobody_is_set_aside_and_one_to_a_group_is_kept() -> None:
    echoes = [
        text(**{"from": "12025550143"}),
        text(**{"from": "12025550143"}, id="wamid.2", group_id="Y2FwZQ"),
        text(**{"from": "12025550143"}, id="wamid.3", to="Y2FwZQ", recipient_type="group"),
    ]

    body = read({"message_echoes": echoes}, field="smb_message_echoes")

    assert reasons(body) == ["message_without_sender"]
    assert [(e.wamid, e.person, e.group_id) for e in body.events if isinstance(e, Message)] == [
        ("wamid.2", None, "Y2FwZQ"),
        ("wamid.3", None, "Y2FwZQ"),
    ]


def test_a_reaction_of_staff_is_outbound() -> None:
    echo = text(
        **{"from": "12025550143", "to": "12025550117", "type": "reaction"},
        reaction={"message_id": "wamid.0", "emoji": "👍"},
    )

    assert only(read({"message_echoes": [echo]}, field="smb_message_echoes")) == Reaction(
        0, 0, "wamid.1", "wamid.0", "👍", "outbound", at(1763802000), Person(None, "12025550117"), "app"
    )


def test_a_group_id_too_long_to_index_still_keeps_the_message_out_of_a_private_chat() -> None:
    event = only(read({"messages": [text(group_id="g" * 600)]}))

    assert isinstance(event, Message)
    assert event.group_id == "g" * 512


@pytest.mark.parametrize("context", [None, {}, "x", {"id": None}, {"id": "x" * 600}, {"forwarded": True}])
def test_a_context_without_an_id_is_no_reply(context: object) -> None:
    event = only(read({"messages": [text(context=context)]}))

    assert isinstance(event, Message)
    assert event.reply_to_wamid is None


# --- identity ---------------------------------------------------------------------------------------------------------


def system(body: str = "", **said: Any) -> dict[str, Any]:
    sent = text(type="system", system={"type": "user_changed_user_id", "body": body} | said)
    return {key: value for key, value in sent.items() if key != "from"}


@pytest.mark.parametrize(
    ("body", "previous"),
    [
        ("User Kestrel changed from US.1 to US.2", "US.1"),
        ("User Kestrel changed from US.ENT.1 to US.2.", "US.ENT.1"),
        # The name is the customer's: what it says of ids counts for nothing.
        ("User Eve changed from US.9 to US.2 changed from US.1 to US.2", "US.1"),
        ("User changed from US.9 to US.2", "US.9"),
        ("User Eve changed from US.9 to US.2 changed from US.1 to US.3", None),
        ("User Eve changed from US.9 to US.2 changed her id", None),
        ("User Kestrel changed from US.1 to US.3", None),
        ("User Kestrel changed from 12025550117 to US.2", None),
        ("User Kestrel changed from US.2 to US.2", None),
        ("changed from US.1 to US.2" + " " * 500, None),
        ("", None),
    ],
)
def test_an_old_id_is_read_at_the_end_of_the_sentence_and_only_if_it_leads_to_the_new(
    body: str, previous: str | None
) -> None:
    event = only(read({"messages": [system(body, user_id="US.2")]}))

    assert isinstance(event, IdentityChange)
    assert (event.person, event.previous_user_id) == (Person("US.2", None), previous)


def test_a_named_previous_id_outweighs_the_sentence() -> None:
    event = only(
        read({"messages": [system("User A changed from US.1 to US.2", user_id="US.2", previous_user_id="US.7")]})
    )

    assert isinstance(event, IdentityChange)
    assert event.previous_user_id == "US.7"


def test_an_old_number_is_read_out_of_the_sentence_when_nothing_else_says_it() -> None:
    said = system("Ana changed from +12025550117 to 12025550199", wa_id="12025550199", type="user_changed_number")

    event = only(read({"messages": [said]}))

    assert isinstance(event, IdentityChange)
    assert (event.person, event.previous_wa_id) == (Person(None, "12025550199"), "12025550117")


def test_a_number_beside_a_changed_user_id_is_not_given_to_the_new_one() -> None:
    event = only(read({"messages": [system(user_id="US.2", previous_user_id="US.1") | {"from": "12025550117"}]}))

    assert isinstance(event, IdentityChange)
    assert (event.person, event.previous_wa_id) == (Person("US.2", None), "12025550117")


@pytest.mark.parametrize("said", [{}, {"user_id": "nobody"}, {"previous_user_id": "US.1"}, {"wa_id": "+"}])
def test_a_change_to_no_id_is_set_aside(said: dict[str, Any]) -> None:
    assert reasons(read({"messages": [system(**said)]})) == ["identity_change_without_ids"]


def test_a_changed_key_of_nobody_is_set_aside() -> None:
    said = system(type="customer_identity_changed") | {"identity": {"hash": "abc"}}

    assert reasons(read({"messages": [said]})) == ["identity_hash_without_person"]


@pytest.mark.parametrize("kind", ["customer_identity_changed", "future", None, 7])
def test_a_system_message_that_says_nothing_we_know_is_kept(kind: object) -> None:
    assert only(read({"messages": [system(type=kind)]})) == Kept(0, 0, "system", at(1763802000))
