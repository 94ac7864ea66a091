"""Redaction: what is personal goes, in every form people write it; what Claude needs stays; all of it comes back."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.ai_worker.redaction import PLACEHOLDER, NotRedacted, Redactor
from tests.personal import personal, some_personal


def kinds(text: str) -> list[str]:
    """The placeholders' kinds in a redacted text."""
    return [found.strip("[]").rpartition("_")[0] for found in PLACEHOLDER.findall(Redactor().text(text))]


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("EMAIL", "ana.souza+loja@example.com.br"),
        ("EMAIL", "ÄRGER@müller.example"),
        ("EMAIL", "ana＠example.com"),
        ("EMAIL", "ana (at) example (dot) com"),
        ("PHONE", "+55 (11) 98765-4321"),
        ("PHONE", "(11) 98765-4321"),
        ("PHONE", "11 98765 4320"),
        ("PHONE", "+1 202-555-0117"),
        ("PHONE", "(202) 555-0117"),
        ("PHONE", "555-0117"),
        ("PHONE", "0151 / 23456789"),
        ("PHONE", "+49 (0)30 901820"),
        ("PHONE", "612 34 56 78"),
        ("PHONE", "612.345.678"),
        ("PHONE", "06.12.34.56.78"),
        ("PHONE", "020 7946 0321"),
        ("PHONE", "070-174 06 05"),
        ("PHONE", "٠١٠١٢٣٤٥٦٧٨"),
        ("CARD", "4111 1111 1111 1111"),
        ("CARD", "5555-5555-5555-4444"),
        ("CARD", "378282246310005"),
        ("CARD", "4111\u200b1111\u200b1111\u200b1111"),
        ("IBAN", "DE89 3704 0044 0532 0130 00"),
        ("IBAN", "gb82west12345698765432"),
        ("IBAN", "FR14 2004 1010 0505 0001 3M02 606"),
        ("ID", "529.982.247-25"),  # CPF
        ("ID", "52998224725"),
        ("ID", "11.222.333/0001-81"),  # CNPJ
        ("ID", "078-05-1120"),  # SSN
        ("ID", "86095742719"),  # Steuer-ID
        ("ID", "L01X00T471"),  # Personalausweis
        ("ID", "12345678Z"),  # DNI
        ("ID", "12.345.678-Z"),
        ("ID", "X-1234567-L"),  # NIE
        ("ID", "2 69 05 49 588 157 80"),  # NIR
        ("ID", "1 85 05 2A 006 084 36"),  # NIR, Corsica
        ("NUMBER", "4111111111111112"),  # no card: the check is wrong; gone all the same
        ("NUMBER", "12345678"),
    ],
)
def test_each_form_goes_whole_and_is_named(kind: str, written: str) -> None:
    assert kinds(written) == [kind]
    assert Redactor().text(f"Por favor: {written}. Obrigada!") == f"Por favor: [{kind}_1]. Obrigada!"


@pytest.mark.parametrize(
    "text",
    [
        "Order 441122 has not arrived, 3 of 12 pieces are missing.",
        "I was born on 24.11.1990, no: 1990-11-24, in the US 11/24/90.",
        "Tomorrow 10:30, or 2026-11-24 10:30, at room 4.",
        "From 01.12.2026 - 05.12.2026, as in 2024-2025.",
        "It costs R$ 12.345.678 or 1.234.567,89 € or $1,234,567.89.",
        "ZIP 90210, PLZ 10115, CEP 01310.",
        "meet @ noon, follow @casaverde",
        "covid2019 and iPhone17 and 4K",
    ],
)
def test_what_claude_needs_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_the_same_value_has_the_same_placeholder_and_numbers_follow_the_order_of_appearance() -> None:
    redactor = Redactor()

    history = redactor.text("Call 030 901820 or 030 901821")
    new = redactor.text("I did call 030 901821, then 030 901822")

    assert history == "Call [PHONE_1] or [PHONE_2]"
    assert new == "I did call [PHONE_2], then [PHONE_3]"
    assert Redactor().text("Call 030 901820 or 030 901821") == history


def test_a_placeholder_that_a_customer_types_is_not_ours() -> None:
    redactor = Redactor()

    shown = redactor.text("my mail ana@example.com, and [EMAIL_1], and [email_2]")

    assert shown == "my mail [EMAIL_1], and [TEXT_1], and [TEXT_2]"
    assert redactor.restore("To [EMAIL_1] [TEXT_1]") == "To ana@example.com [EMAIL_1]"


def test_a_placeholder_that_claude_made_up_shows_nothing_of_anybody() -> None:
    assert Redactor().restore("Call [PHONE_7]") == "Call …"


def test_what_is_restored_into_json_cannot_end_its_string() -> None:
    redactor = Redactor()
    shown = redactor.text("[TEXT_1]\\ and a\\b@example.com")

    answer = redactor.restore_json(json.dumps({"summary": shown}))

    assert json.loads(answer) == {"summary": "[TEXT_1]\\ and a\\b@example.com"}


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_number_across_the_cut_goes_whole(cut: int) -> None:
    shown = Redactor().text("Pay with 4111 1111 1111 1111 please", most_characters=cut)

    assert not re.search(r"\d{2}", shown)
    assert "1111" not in shown


def test_what_redaction_lets_through_is_found_by_the_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ai_worker.redaction.spans", lambda text: [])

    for left in ("ana@example.com", "4111 1111 1111 1111", "202555011712"):
        with pytest.raises(NotRedacted) as refused:
            Redactor().text(left)
        assert left not in str(refused.value)


@given(st.text())
@example("[TEXT_1][TEXT_2][text_1]")
@example("\uff0b49 151 2345678")
def test_whatever_is_redacted_comes_back_character_for_character(text: str) -> None:
    redactor = Redactor()

    shown = redactor.text(text)

    assert redactor.restore(shown) == text
    assert json.loads(redactor.restore_json(json.dumps(shown, ensure_ascii=False))) == text


@given(st.lists(st.sampled_from([*"0123456789 .-()/+@abXZ:[]_", "PHONE", "2026", "€"]), max_size=60).map("".join))
def test_numbers_in_any_disorder_come_back_too(text: str) -> None:
    redactor = Redactor()

    assert redactor.restore(redactor.text(text)) == text


@given(before=st.text("abc äß,;!?\n", max_size=12), value=personal(), after=st.text("abc äß,;!?\n", max_size=12))
def test_nothing_personal_is_left_wherever_it_stands(before: str, value: str, after: str) -> None:
    shown = Redactor().text(before + value + after)

    assert not some_personal(value, shown), (value, shown)


def test_a_long_message_of_the_worst_kind_takes_no_time() -> None:
    for worst in ("a" * 70_000, "1 " * 35_000, "DE89" * 17_000, "a@" * 35_000, "+(" * 35_000, "x1y2z3w4 " * 8000):
        Redactor().text(worst, most_characters=4000)
