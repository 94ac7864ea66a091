"""Addresses that are permissions, names that are no paths, hosts that may see our token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest

from services.sender.download import hex_sha256
from services.sender.media_hosts import is_stand_in, leads_outside, may_fetch
from services.sender.multipart_file import file_of
from shared.domain.errors import NotFound, Rejected
from shared.storage.file_names import content_disposition, safe_filename
from shared.storage.file_urls import PATH, FileUrls
from shared.storage.port import checked_key

KEY = "0199c2f4-7a31-7cc0-9a3e-0d4f2b1c6e55/2026/11/0199c2f4-7a31-7cc0-9a3e-0d4f2b1c6e56"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
URLS = FileUrls(b"k" * 32)


def _signed() -> tuple[str, dict[str, str]]:
    parts = urlsplit(URLS.sign(KEY, filename="a.pdf", mime_type="application/pdf", now=NOW, lives_s=60).url)
    return parts.path.removeprefix(PATH + "/"), dict(parse_qsl(parts.query))


def test_address_is_good_until_it_is_too_old() -> None:
    key, query = _signed()

    grant = URLS.read(key, query, now=NOW + timedelta(seconds=59))
    with pytest.raises(NotFound) as late:
        URLS.read(key, query, now=NOW + timedelta(seconds=60))

    assert (grant.key, grant.filename, grant.mime_type) == (KEY, "a.pdf", "application/pdf")
    assert late.value.code == "file_address_expired"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a.exe"},
        {"type": "text/html"},
        {"expires": "9999999999"},
        {"signature": ""},
        {"signature": "é" * 43},
        {"expires": "soon"},
        {"name": "a.pdf15:application/pdf", "type": ""},
    ],
)
def test_address_that_was_changed_is_none(change: dict[str, str]) -> None:
    key, query = _signed()

    with pytest.raises(NotFound):
        URLS.read(key, query | change, now=NOW)


def test_address_of_one_file_opens_no_other_and_no_other_secret_signs() -> None:
    key, query = _signed()

    with pytest.raises(NotFound):
        URLS.read(key[:-1] + "0", query, now=NOW)
    with pytest.raises(NotFound):
        FileUrls(b"x" * 32).read(key, query, now=NOW)


@pytest.mark.parametrize("key", ["../../etc/passwd", "/etc/passwd", KEY + "/..", KEY.upper(), KEY + "\n", ""])
def test_key_that_is_not_ours_is_no_path(key: str) -> None:
    with pytest.raises(NotFound):
        checked_key(key)


@pytest.mark.parametrize(
    ("filename", "mime_type", "expected"),
    [
        ("invoice.pdf", "application/pdf", "invoice.pdf"),
        ("../../etc/passwd", "text/plain", "etc_passwd.txt"),
        ("invoice.pdf.exe", "application/pdf", "invoice.pdf.exe.pdf"),
        ("invoice\u202efdp.exe", "application/x-elf", "invoice_fdp.exe.txt"),
        ("virus", "text/html", "virus.txt"),
        ('a"b\r\nSet-Cookie: x.png', "image/png", "a_b_Set-Cookie_ x.png"),
        (None, "image/jpeg", "file.jpg"),
        ("", "application/octet-stream", "file.bin"),
        ("...", "image/webp", "file.webp"),
        ("x" * 300 + ".png", "image/png", "x" * 117 + ".png"),
        ("Fotos da praia.JPG", "image/jpeg", "Fotos da praia.JPG"),
    ],
)
def test_name_a_file_is_saved_under_is_harmless(filename: str | None, mime_type: str, expected: str) -> None:
    assert safe_filename(filename, mime_type) == expected


def test_disposition_carries_any_script() -> None:
    assert content_disposition('Grüße "1".pdf') == (
        "attachment; filename=\"Gr__e _1_.pdf\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe%20%221%22.pdf"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1", True),
        ("https://LOOKASIDE.fbsbx.com:443/x", True),
        ("http://lookaside.fbsbx.com/x", False),
        ("https://lookaside.fbsbx.com:8443/x", False),
        ("https://lookaside.fbsbx.com.evil.example/x", False),
        ("https://evil.example/lookaside.fbsbx.com", False),
        ("https://lookaside.fbsbx.com@evil.example/x", False),
        ("https://user@lookaside.fbsbx.com/x", False),
        ("https://169.254.169.254/latest/meta-data", False),
        ("file:///etc/passwd", False),
        ("https://[::1/x", False),
        ("http://127.0.0.1:8900/graph/x", False),
        ("", False),
    ],
)
def test_token_goes_to_listed_hosts_only(url: str, expected: bool) -> None:
    assert may_fetch(url, ["lookaside.fbsbx.com"]) is expected


def test_sandbox_may_be_asked_over_http_where_it_is_listed() -> None:
    assert may_fetch("http://127.0.0.1:8900/graph/x", ["127.0.0.1"])
    assert not may_fetch("http://10.0.0.1:8900/graph/x", ["10.0.0.1"])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://sandbox:8003/graph/x", True),
        ("http://sandbox:8004/graph/x", False),
        ("https://sandbox:8003/graph/x", False),
        ("http://sandbox:8003.evil.example/x", False),
        ("http://me@sandbox:8003/x", False),
        ("https://[::1/x", False),
    ],
)
def test_a_stand_in_named_whole_is_that_server_and_no_other(url: str, expected: bool) -> None:
    assert is_stand_in(url, ["lookaside.fbsbx.com", "http://sandbox:8003"]) is expected


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["157.240.1.35"], True),
        (["2a03:2880:f12d:83:face:b00c:0:25de"], True),
        (["157.240.1.35", "10.0.0.7"], False),
        (["127.0.0.1"], False),
        (["169.254.169.254"], False),
        (["::ffff:192.168.0.1"], False),
        (["fd00::1"], False),
        (["100.64.0.1"], False),
        ([], False),
    ],
)
async def test_name_that_leads_into_our_network_is_refused(addresses: list[str], expected: bool) -> None:
    async def resolve(host: str) -> list[str]:
        return addresses

    assert await leads_outside("https://lookaside.fbsbx.com/x", resolve=resolve) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("AB" * 32, "ab" * 32),
        ("q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=", "ab" * 32),
        ("zz" * 32, None),
        ("q6s=", None),
        (None, None),
    ],
)
def test_digest_is_read_as_hex_or_base64(value: object, expected: str | None) -> None:
    assert hex_sha256(value) == expected


async def _in_pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


def _form(content: bytes, *, end: bool = True) -> bytes:
    head = (
        b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nhi\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\nContent-Type: x/y\r\n\r\n'
    )
    return head + content + (b"\r\n--b--\r\n" if end else b"")


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
async def test_file_of_a_form_comes_out_whole_however_it_is_cut(size: int) -> None:
    content = b"\r\n--b" + bytes(range(256)) * 3 + b"\r\n--"

    incoming = await file_of("multipart/form-data; boundary=b", _in_pieces(_form(content), size))

    assert incoming.filename == "a.bin"
    assert b"".join([piece async for piece in incoming.pieces]) == content


async def test_form_that_breaks_off_is_no_file() -> None:
    incoming = await file_of("multipart/form-data; boundary=b", _in_pieces(_form(b"x" * 200, end=False), 50))

    with pytest.raises(Rejected) as refused:
        [piece async for piece in incoming.pieces]

    assert refused.value.code == "multipart_broken"


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("application/json", b"{}", "not_multipart"),
        ("multipart/form-data", b"", "not_multipart"),
        ("multipart/form-data; boundary=b", b"--b--\r\n", "file_missing"),
        ("multipart/form-data; boundary=b", b"", "file_missing"),
        ("multipart/form-data; boundary=b", b"nonsense that is no form at all", "multipart_broken"),
    ],
)
async def test_body_without_a_file_is_refused(content_type: str, body: bytes, code: str) -> None:
    with pytest.raises(Rejected) as refused:
        await file_of(content_type, _in_pieces(body, 5))

    assert refused.value.code == code
