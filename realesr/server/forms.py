"""Parses a form with one file as its bytes come in (multipart/form-data, RFC 7578), within limits."""

from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from .job_options import FIELDS
from .refusals import Refusal

FILE_FIELD = "image"
MOST_FIELD_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class Part:
    """The beginning of a part of the form."""

    field: str
    file_name: str | None
    """As the client sent it; None for a part that is no file."""


class Form:
    """A form that is fed with bytes, and gives back the bytes of its file.

    Every method that parses raises Refusal where the form is malformed, or has what it may not have.
    """

    def __init__(self, boundary: bytes, most_file_bytes: int) -> None:
        self.fields: dict[str, str] = {}
        self.file_name: str | None = None
        self.file_bytes = 0
        self.is_complete = False
        self._most_file_bytes = most_file_bytes
        self._part: Part | None = None
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._value = bytearray()
        self._content: list[bytes] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_content,
                "on_part_data": self._take,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> bytes:
        """Parse bytes; return those of the file that are among them."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Refusal(400, f"got a malformed form ({error}), expected multipart/form-data", "UsageError") from error
        content, self._content = b"".join(self._content), []
        return content

    def check_complete(self) -> None:
        """Raise Refusal where the form has ended too early, or has no file."""
        if not self.is_complete:
            raise Refusal(400, "the upload has ended in the middle of the form: send it again", "UsageError")
        if self.file_name is None:
            raise Refusal(400, f"got a form without a file, expected one as {FILE_FIELD}", "UsageError")
        if not self.file_bytes:
            raise Refusal(422, "the file is empty (0 bytes): expected an image", "InputError")

    def _begin_part(self) -> None:
        self._part, self._disposition, self._value = None, b"", bytearray()
        self._header = (bytearray(), bytearray())

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _begin_content(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        file_name = options.get(b"filename")
        self._part = Part(field=field, file_name=None if file_name is None else file_name.decode("utf-8", "replace"))
        if field == FILE_FIELD and file_name is not None and self.file_name is None:
            self.file_name = self._part.file_name
        elif field not in FIELDS or file_name is not None or field in self.fields:
            raise Refusal(400, self._why_not(self._part), "UsageError")

    def _why_not(self, part: Part) -> str:
        """Return why a part is not taken."""
        if part.field in self.fields or (part.field == FILE_FIELD and self.file_name is not None):
            return f"got {part.field} twice, expected it once"
        if part.field == FILE_FIELD:
            return f"got {FILE_FIELD} as text, expected a file (with curl: -F {FILE_FIELD}=@photo.jpg)"
        names = ", ".join(FIELDS)
        return f"got the field {part.field[:40]!r}, expected the file {FILE_FIELD}, and of the fields {names}"

    def _take(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        if self._part.file_name is None:
            self._value += data[start:end]
            if len(self._value) > MOST_FIELD_BYTES:
                message = f"got more than {MOST_FIELD_BYTES} bytes as {self._part.field}, expected a name or a number"
                raise Refusal(400, message, "UsageError")
            return
        self.file_bytes += end - start
        if self.file_bytes > self._most_file_bytes:
            raise too_large(self._most_file_bytes)
        self._content.append(data[start:end])

    def _end_part(self) -> None:
        assert self._part is not None
        if self._part.file_name is None:
            self.fields[self._part.field] = self._value.decode("utf-8", "replace").strip()

    def _end(self) -> None:
        self.is_complete = True


def too_large(most_file_bytes: int) -> Refusal:
    """Return the refusal of a file above the cap."""
    return Refusal(
        413, f"got a file of more than {most_file_bytes / 1e6:,.3g} MB, which is the most taken", "InputError"
    )
