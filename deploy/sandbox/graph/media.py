"""Files: uploads, the short-lived URLs they are fetched by, deletion; and sample files for template headers.

Source: Meta, business-phone-numbers/media and "Resumable Upload API", read 2026-11-22.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy.sandbox.graph.errors import Refused, no_such_object
from deploy.sandbox.graph.wire import SUCCESS, Answer, Request, multipart
from deploy.sandbox.story import KnownMedia

if TYPE_CHECKING:
    from deploy.sandbox.graph.world import Number, World

DAY_S = 24 * 3600
UPLOADED_S, RECEIVED_S = 30 * DAY_S, 7 * DAY_S
MOST_BYTES = 256 * 1024 * 1024  # of all files together; the oldest make room
MOST_FILES = 10_000
_KB, _MB = 1024, 1024 * 1024
_OFFICE = "application/vnd.openxmlformats-officedocument."
# kind → media types, largest file in bytes. Source: section 4.3 of the fact sheet.
KINDS: dict[str, tuple[frozenset[str], int]] = {
    "audio": (frozenset({"audio/aac", "audio/amr", "audio/mpeg", "audio/mp4", "audio/ogg"}), 16 * _MB),
    "image": (frozenset({"image/jpeg", "image/png"}), 5 * _MB),
    "video": (frozenset({"video/mp4", "video/3gpp"}), 16 * _MB),
    "document": (
        frozenset(
            {
                "text/plain",
                "application/pdf",
                "application/msword",
                "application/vnd.ms-excel",
                "application/vnd.ms-powerpoint",
                f"{_OFFICE}wordprocessingml.document",
                f"{_OFFICE}spreadsheetml.sheet",
                f"{_OFFICE}presentationml.presentation",
            }
        ),
        100 * _MB,
    ),
    "sticker": (frozenset({"image/webp"}), 500 * _KB),
}
LARGEST = 100 * _MB
# Source: Meta, "Resumable Upload API", read 2026-11-22.
SAMPLES = frozenset({"application/pdf", "image/jpeg", "image/jpg", "image/png", "video/mp4"})


@dataclass(frozen=True, slots=True)
class File:
    """One file this Meta holds."""

    id: str
    phone_number_id: str
    mime_type: str
    content: bytes
    name: str | None
    expires_at: float

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.content).digest()


@dataclass(slots=True)
class Sample:
    """A template's sample file on its way, in one piece or several. Its bytes are counted, not kept."""

    handle: str
    size: int
    received: int = 0


class Media:
    """All files, oldest first, within a bound."""

    def __init__(self, known: Iterable[KnownMedia], now: float) -> None:
        self._ids = itertools.count(7_301_884_420_000_000 + secrets.randbelow(10**9))
        self._files: dict[str, File] = {}
        self._bytes = 0
        self.samples: dict[str, Sample] = {}  # by upload session
        for one in known:
            content = base64.b64decode(one.content)
            self._keep(File(one.id, one.phone_number_id, one.mime_type, content, None, now + UPLOADED_S))

    def add(self, phone_number_id: str, mime_type: str, content: bytes, name: str | None, expires_at: float) -> File:
        file = File(str(next(self._ids)), phone_number_id, mime_type, content, name, expires_at)
        self._keep(file)
        return file

    def _keep(self, file: File) -> None:
        self._files[file.id] = file
        self._bytes += len(file.content)
        while self._bytes > MOST_BYTES or len(self._files) > MOST_FILES:
            self.delete(next(iter(self._files)))

    def find(self, media_id: str, now: float) -> File | None:
        file = self._files.get(media_id)
        return file if file is not None and file.expires_at > now else None

    def delete(self, media_id: str) -> None:
        file = self._files.pop(media_id, None)
        if file is not None:
            self._bytes -= len(file.content)


def kind_of(mime_type: str) -> str | None:
    """Return image, audio …, or None for what WhatsApp does not carry; parameters such as codecs do not matter."""
    plain = mime_type.partition(";")[0].strip().lower()
    return next((kind for kind, (types, _) in KINDS.items() if plain in types), None)


def check_file(mime_type: str, size: int) -> None:
    """Refuse a type or a size WhatsApp does not carry."""
    kind = kind_of(mime_type)
    if kind is None:
        types = ", ".join(sorted(set().union(*(types for types, _ in KINDS.values()))))
        raise Refused(
            100,
            f"Param file must be a file with one of the following types: {types}. Received file of type "
            f"'{mime_type[:80]}'.",
        )
    if size > KINDS[kind][1]:
        raise Refused(131053, f"File size {size} is larger than the {KINDS[kind][1]} bytes allowed for {kind}.")
    if size == 0:
        raise Refused(100, "Param file must not be empty.")


def upload(world: World, number: Number, request: Request) -> Answer:
    """Answer `POST /<PHONE_NUMBER_ID>/media`."""
    parts = multipart(request)
    if "file" not in parts:
        raise Refused(100, "The parameter file is required.")
    if "messaging_product" not in parts or parts["messaging_product"].content != b"whatsapp":
        raise Refused(100, "The parameter messaging_product is required.")
    file = parts["file"]
    said = parts["type"].content.decode("utf-8", "replace").strip() if "type" in parts else ""
    mime_type = file.content_type or said
    check_file(mime_type, len(file.content))
    kept = world.media.add(number.id, mime_type, file.content, file.filename, world.clock() + UPLOADED_S)
    return Answer({"id": kept.id})


def url_of(world: World, file: File, source: str = "getMedia") -> str:
    """Make the URL the file can be fetched by for five minutes."""
    expires = int(world.clock()) + world.behaviour.media_url_s
    proof = _proof(world, file.id, str(expires))
    return (
        f"{world.base_url}/graph/whatsapp_business/attachments/"
        f"?mid={file.id}&source={source}&ext={expires}&hash={proof}"
    )


def _proof(world: World, media_id: str, expires: str) -> str:
    return "AR" + hmac.new(world.secret, f"{media_id}.{expires}".encode(), "sha256").hexdigest()[:24]


def show(world: World, file: File, request: Request) -> Answer:
    """Answer `GET /<MEDIA_ID>`."""
    asked_for = request.query.get("phone_number_id")
    if asked_for is not None and asked_for != file.phone_number_id:
        raise no_such_object(file.id)
    return Answer(
        {
            "messaging_product": "whatsapp",
            "url": url_of(world, file),
            "mime_type": file.mime_type,
            "sha256": file.digest.hex(),
            "file_size": len(file.content),
            "id": file.id,
        }
    )


def delete(world: World, file: File) -> Answer:
    world.media.delete(file.id)
    return Answer(SUCCESS)


def download(world: World, query: dict[str, str]) -> Answer:
    """Answer a GET of a media URL; the caller has checked the token. 404 once the URL or the file is too old."""
    file = world.media.find(query.get("mid", ""), world.clock())
    expires = query.get("ext", "")
    proven = hmac.compare_digest(
        query.get("hash", "").encode("utf-8", "replace"), _proof(world, query.get("mid", ""), expires).encode()
    )
    if file is None or not proven or int(expires) <= world.clock():
        return Answer(b"Not found", 404, "text/plain")
    name = (file.name or "File").encode("ascii", "replace").decode().replace('"', "").replace(";", "")
    disposition = f"inline;filename={name}".encode("latin-1")
    return Answer(file.content, 200, file.mime_type, ((b"content-disposition", disposition),))


def webhook_object(world: World, file: File) -> dict[str, Any]:
    """Return what stands in a webhook when a customer sends this file; the digest is base64 here, hex in the API."""
    return {
        "mime_type": file.mime_type,
        "sha256": base64.b64encode(file.digest).decode(),
        "id": file.id,
        "url": url_of(world, file, "webhook"),
    }


def start_sample(world: World, request: Request) -> Answer:
    """Answer `POST /<APP_ID>/uploads`: the first step of uploading a template's sample file."""
    asked = request.body()
    size, mime_type = str(asked.get("file_length", "")), str(asked.get("file_type", ""))
    if not size.isdigit() or not mime_type:
        raise Refused(100, "The parameters file_length and file_type are required.")
    if mime_type not in SAMPLES:
        raise Refused(100, f"file_type must be one of {', '.join(sorted(SAMPLES))}.")
    session = "upload:" + secrets.token_urlsafe(24)
    handle = f"4::{base64.b64encode(mime_type.encode()).decode()}:{secrets.token_urlsafe(48)}"
    world.media.samples[session] = Sample(handle, int(size))
    while len(world.media.samples) > MOST_FILES:
        del world.media.samples[next(iter(world.media.samples))]
    return Answer({"id": session})


def sample(world: World, session: str, request: Request) -> Answer:
    """Answer `POST /upload:…` with the handle once all of the file is there, `GET` with how far the upload is."""
    found = world.media.samples.get(session)
    if found is None:
        raise no_such_object(session)
    if request.method == "POST":
        if request.headers.get(b"file_offset", b"").decode("latin-1") != str(found.received):
            raise Refused(100, f"The header file_offset must be {found.received}.")
        if found.received + len(request.raw) > found.size:
            raise Refused(100, f"The file is larger than its file_length, {found.size} bytes.")
        found.received += len(request.raw)
        if found.received == found.size:
            return Answer({"h": found.handle})
    return Answer({"id": session, "file_offset": found.received})
