"""Attachments as parts of a message: their content type, their file name and their bytes in base64."""

import re
from urllib.parse import quote

from postroom.compose.body import Entity, base64_lines
from postroom.compose.check import ComposeError, require_line
from postroom.files import COMPOSITE, CONTENT_TYPE
from postroom.message import Attachment

_MAX_PLAIN_NAME = 60  # a longer file name is split over parameters of RFC 2231
_SECTION = 54  # characters of an encoded file name on one line

_CID = re.compile(r"[A-Za-z0-9._-]{1,128}(?:@[A-Za-z0-9.-]{1,128})?")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 ._-]")
_SECTION_CUT = re.compile(rf".{{1,{_SECTION}}}(?<!%)(?<!%[0-9A-F])", re.DOTALL)


def is_cid(text: str) -> bool:
    """True for a name by which html may refer to an inline image (`<img src="cid:...">`)."""
    return _CID.fullmatch(text) is not None


def is_inline(attachment: Attachment) -> bool:
    """True for an image that html shows by its `cid`; nothing else, since receivers render what is inline."""
    return attachment.cid is not None and attachment.content_type[:6].lower() == "image/"


def attachment_part(attachment: Attachment, disposition: str) -> Entity:
    """Make the part of an attachment. `disposition` is `attachment` or `inline` (RFC 2183)."""
    require_line(attachment.name, "a file name")
    if attachment.provider_key:
        raise ComposeError("only its provider has the bytes of an attachment")
    fields = [
        (
            "Content-Type",
            f"Content-Type: {_content_type(attachment)};\n name={_fallback(attachment.name)}\n",
        ),
        ("Content-Transfer-Encoding", "Content-Transfer-Encoding: base64\n"),
        ("Content-Disposition", f"Content-Disposition: {disposition};\n {_filename(attachment.name)}\n"),
    ]
    if attachment.cid is not None:
        if not is_cid(attachment.cid):
            raise ComposeError("a cid is not a plain name")
        fields.append(("Content-ID", f"Content-ID: <{attachment.cid}>\n"))
    return Entity(tuple(fields), attachment.encoded or base64_lines(attachment.data))


def _content_type(attachment: Attachment) -> str:
    found = CONTENT_TYPE.fullmatch(attachment.content_type)
    if found is None:
        raise ComposeError("a content type is not of the form type/subtype")
    if found["kind"].lower() in COMPOSITE:
        return "application/octet-stream"
    return attachment.content_type


def _is_plain(name: str) -> bool:
    return name.isascii() and len(name) <= _MAX_PLAIN_NAME and "=?" not in name


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _fallback(name: str) -> str:
    """Write the name for readers without RFC 2231; of a long one the end, which holds its extension."""
    return _quoted(name if _is_plain(name) else _NOT_PLAIN.sub("_", name)[-_MAX_PLAIN_NAME:])


def _filename(name: str) -> str:
    """Write the parameter `filename`, in the extended syntax of RFC 2231 where ASCII is not enough."""
    if _is_plain(name):
        return f"filename={_quoted(name)}"
    coded = "utf-8''" + quote(name, safe="")
    if len(coded) <= _SECTION:
        return f"filename*={coded}"
    sections = _SECTION_CUT.findall(coded)
    return ";\n ".join(f"filename*{number}*={section}" for number, section in enumerate(sections))
