"""The one file of a multipart/form-data body, piece by piece as it comes.

Starlette's own `request.form()` writes all of it to a temporary file before anybody counts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from shared.domain.errors import Rejected


@dataclass(slots=True)
class IncomingFile:
    """A file that is coming in. filename: as its sender named it, if they did."""

    filename: str | None
    pieces: AsyncIterator[bytes]


async def file_of(content_type: str, body: AsyncIterator[bytes]) -> IncomingFile:
    """Return the body's first part that is a file; what comes before it is skipped, what comes after refused.

    Raises: Rejected `not_multipart`, `file_missing`; `multipart_broken` also from `pieces`.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Rejected(
            "not multipart/form-data",
            code="not_multipart",
            hint="Send the file as multipart/form-data, in a part `file`.",
        )
    parts = _Parts()
    parser = MultipartParser(options[b"boundary"], parts.callbacks())  # type: ignore[arg-type]
    chunks = _parsed(parser, parts, body)
    async for _ in chunks:
        if parts.is_found:
            return IncomingFile(parts.filename, _pieces(parts, chunks))
    raise Rejected("the form holds no file", code="file_missing", hint="Send the file in a part named `file`.")


async def _parsed(parser: MultipartParser, parts: _Parts, body: AsyncIterator[bytes]) -> AsyncIterator[None]:
    try:
        async for chunk in body:
            parser.write(chunk)
            yield
        parser.finalize()
    except FormParserError as error:
        raise _broken() from error
    if parts.is_found and not parts.is_over:
        raise _broken()
    yield


async def _pieces(parts: _Parts, chunks: AsyncIterator[None]) -> AsyncIterator[bytes]:
    while True:
        if parts.taken:
            piece = b"".join(parts.taken)
            parts.taken.clear()
            yield piece
        try:
            await anext(chunks)
        except StopAsyncIteration:
            return


def _broken() -> Rejected:
    return Rejected(
        "the form breaks off, or is none", code="multipart_broken", hint="The upload broke off; send the file again."
    )


@dataclass(slots=True)
class _Parts:
    """What the parser tells, part by part."""

    filename: str | None = None
    taken: list[bytes] = field(default_factory=list)
    is_found: bool = False
    is_over: bool = False
    _name: bytes = b""
    _value: bytes = b""
    _disposition: bytes = b""

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_name,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_headers_finished": self._on_headers,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
        }

    @property
    def _is_taking(self) -> bool:
        return self.is_found and not self.is_over

    def _begin(self) -> None:
        self._disposition = b""

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if not self.is_found and options.get(b"name") == b"file":
            self.is_found = True
            self.filename = options[b"filename"].decode("utf-8", "replace") if b"filename" in options else None

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_taking:
            self.taken.append(bytes(data[start:end]))

    def _end(self) -> None:
        self.is_over = self.is_found
