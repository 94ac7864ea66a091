"""What Meta's answers mean: every exchange of the fixtures, and what no fixture shows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.whatsapp.errors import (
    BACKOFF,
    LIMITED,
    NO,
    PAIR,
    RULES,
    Failure,
    Kind,
    Then,
    classify,
    classify_download,
    rule_for,
    wamid_of,
)

from .contents import MANIFEST, exchange


def error(code: Any, **more: Any) -> dict[str, Any]:
    return {"error": {"message": "m", "type": "OAuthException", "code": code, **more}}


@pytest.mark.parametrize("about", MANIFEST, ids=lambda about: about["file"])
def test_every_exchange_is_understood(about: dict[str, Any]) -> None:
    found = exchange(about["file"])
    response, expect = found["response"], found["expect"]
    body = response["body"]
    is_json = isinstance(body, dict) and not {"_text", "_binary"} & body.keys()

    if "lookaside.fbsbx.com" in found["request"]["url"]:
        verdict = classify_download(response["status"])
    else:
        verdict = classify(response["status"], body if is_json else None)

    assert (verdict.rule.reason, verdict.retry.name) == (expect["class"], expect["retry"])
    assert (about["class"], about["retry"]) == (expect["class"], expect["retry"])
    if "code" in expect:
        assert verdict.meta_code == expect["code"]
    if "subcode" in expect:
        assert verdict.meta_subcode == expect["subcode"]


def test_every_fixture_is_in_the_manifest() -> None:
    from .contents import GRAPH

    assert {about["file"] for about in MANIFEST} == {path.name for path in GRAPH.glob("*.json")} - {"MANIFEST.json"}


PERMANENT = tuple(
    int(code)
    for line in (
        "130497 131048 131064 131050 131026 130472 130403 131062 137000 131021 131030 131052",
        "100 131008 131009 131051 135000 131020 131041 131201 131215 138000 138018 139200 2388318 2388330",
        "132000 132005 132007 132008 132012 132018 132001 132015 132016 132068 131055 131063 134100 134102",
        "139000 139004 139100 139101 139102 139103 147001 147005 200005 200007 2593107 2593109",
        "2388019 2388040 2388047 2388072 2388073 2388293 2388299",
    )
    for code in line.split()
)


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        (
            (0, 190, 3, 10, 200, 299, 131005, 368, 131031, 131042, 131044, 134011, 133010, 133016, 131045, 33),
            Kind.CHANNEL,
        ),
        ((130429,), Kind.THROTTLE_NUMBER),
        ((131056,), Kind.THROTTLE_PAIR),
        ((4, 80007), Kind.THROTTLE_APP),
        ((2, 131016, 133004, 131057, 2494100, 132069, 134101, 131049, 131059), Kind.RETRY),
        ((1, 131000, 131053), Kind.IN_DOUBT),
        ((131047,), Kind.NEEDS_TEMPLATE),
        (
            PERMANENT,
            Kind.PERMANENT,
        ),
    ],
    ids=lambda value: value if isinstance(value, Kind) else "",
)
def test_every_code_of_the_table_has_its_class(codes: tuple[int, ...], kind: Kind) -> None:
    assert {code: rule_for(code).kind for code in codes} == dict.fromkeys(codes, kind)
    assert all(code in RULES for code in codes)


def test_what_stops_the_channel_alerts() -> None:
    stopped = [rule for rule in RULES.values() if rule.kind is Kind.CHANNEL]

    assert all(rule.alert and rule.then is Then.PAUSE_CHANNEL and rule.retry is NO for rule in stopped)


def test_only_what_may_go_out_later_is_tried_again() -> None:
    never = {Kind.PERMANENT, Kind.CHANNEL, Kind.NEEDS_TEMPLATE}

    assert all((rule.retry is NO) == (rule.kind in never) for rule in RULES.values())


def test_every_rule_speaks_to_an_agent() -> None:
    assert all(len(rule.sentence) > 20 and rule.sentence.endswith(".") for rule in RULES.values())
    assert not [rule.sentence for rule in RULES.values() if any(c.isdigit() for c in rule.sentence.split()[0])]


@pytest.mark.parametrize(
    ("code", "then"),
    [
        (131048, Then.PAUSE_MARKETING),
        (131050, Then.OPT_OUT),
        (132001, Then.RESYNC_TEMPLATES),
        (132015, Then.PAUSE_TEMPLATE),
        (139100, Then.READ_BOTH_LISTS),
    ],
)
def test_some_refusals_have_consequences(code: int, then: Then) -> None:
    assert rule_for(code).then is then


def test_a_pair_waits_four_times_as_long_each_time() -> None:
    assert PAIR.after_s == (1, 4, 16, 64, 256, 1024)


def test_what_is_in_doubt_is_tried_twice_more_at_most() -> None:
    assert len(LIMITED.after_s) == 2


@pytest.mark.parametrize("failure", [Failure.DNS, Failure.CONNECT, Failure.TLS, Failure.POOL])
def test_what_never_left_is_sent_again(failure: Failure) -> None:
    verdict = classify(None, None, failure)

    assert (verdict.kind, verdict.rule.reason, verdict.retry) == (Kind.RETRY, "not_reached", BACKOFF)


@pytest.mark.parametrize("failure", [Failure.TIMEOUT, Failure.RESET, Failure.UNREADABLE])
def test_what_may_have_left_is_in_doubt(failure: Failure) -> None:
    assert classify(None, None, failure).kind is Kind.IN_DOUBT
    assert classify(None, None, failure, is_repeatable=True).kind is Kind.RETRY


@pytest.mark.parametrize(
    ("http_status", "body", "kind"),
    [
        (500, None, Kind.IN_DOUBT),
        (502, {"unexpected": True}, Kind.IN_DOUBT),
        (408, None, Kind.IN_DOUBT),
        (429, None, Kind.THROTTLE_NUMBER),
        (429, error(199999), Kind.THROTTLE_NUMBER),
        (404, None, Kind.PERMANENT),
        (400, {"error": "text"}, Kind.PERMANENT),
        (400, error("131047"), Kind.NEEDS_TEMPLATE),
        (400, error(True), Kind.PERMANENT),
        (200, None, Kind.IN_DOUBT),
        (200, {}, Kind.IN_DOUBT),
        (200, {"messages": []}, Kind.IN_DOUBT),
        (200, {"messages": [{}]}, Kind.IN_DOUBT),
        (200, error(131047), Kind.NEEDS_TEMPLATE),
        (400, error(199999), Kind.PERMANENT),
        (500, error(199999), Kind.PERMANENT),
        (400, error(199999, is_transient=True), Kind.RETRY),
        (500, error(199999, is_transient=True), Kind.IN_DOUBT),
        (400, error(131026, is_transient=True), Kind.PERMANENT),
    ],
)
def test_an_answer_no_fixture_shows(http_status: int, body: object, kind: Kind) -> None:
    assert classify(http_status, body).kind is kind


def test_a_code_nobody_knows_alerts() -> None:
    assert rule_for(199_999).alert
    assert rule_for(100, 2_388_999).alert


@pytest.mark.parametrize("code", [2388299, 100])
def test_a_template_failure_is_read_from_code_or_subcode(code: int) -> None:
    subcode = None if code == 2388299 else 2388299

    assert classify(400, error(code, error_subcode=subcode)).rule is RULES[2388299]


@pytest.mark.parametrize("http_status", [401, 403, 404])
def test_a_dead_address_of_a_file_is_asked_for_again(http_status: int) -> None:
    assert classify_download(http_status).rule.reason == "media_url_expired"


@pytest.mark.parametrize(("http_status", "kind"), [(200, Kind.ACCEPTED), (500, Kind.RETRY), (416, Kind.PERMANENT)])
def test_fetching_a_file_may_be_repeated(http_status: int, kind: Kind) -> None:
    assert classify_download(http_status).kind is kind
    assert classify_download(None, Failure.RESET).kind is Kind.RETRY


def test_the_wamid_of_an_answer() -> None:
    assert wamid_of(exchange("send_text_ok.json")["response"]["body"]).startswith("wamid.")  # type: ignore[union-attr]
    assert wamid_of({"messages": "x"}) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "code", "messages", "id", "is_transient", "error_subcode"]), inner)
    ),
    max_leaves=10,
)


@given(st.none() | st.integers(100, 599), _JSON, st.none() | st.sampled_from(Failure), st.booleans())
def test_any_answer_has_a_verdict(http_status: Any, body: Any, failure: Any, is_repeatable: bool) -> None:
    verdict = classify(http_status, body, failure, is_repeatable=is_repeatable)

    assert verdict.kind in Kind
    assert not (is_repeatable and verdict.kind is Kind.IN_DOUBT)
