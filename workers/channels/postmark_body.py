"""The body of a Postmark request, and the limits that it is held to before it is sent."""

from typing import Any

from postroom.message import Address, Attachment
from workers.channels.seam import Order

MAX_RECIPIENTS = 50
MAX_BYTES = 10_000_000


def breaks_a_limit(order: Order) -> bool:
    """True where Postmark takes fewer recipients than these, or fewer bytes of attachments."""
    size = sum(file.encoded_size for file in order.mail.attachments)
    return len(order.recipients) > MAX_RECIPIENTS or size > MAX_BYTES


def build(order: Order, stream: str) -> dict[str, Any]:
    """Build the request for the recipients of the order, each in its own kind; what is empty is left out."""
    mail = order.mail
    kinds = ("To",) * len(mail.to) + ("Cc",) * len(mail.cc) + ("Bcc",) * len(mail.bcc)
    people = mail.to + mail.cc + mail.bcc
    chosen = {kind: [people[i] for i in order.recipients if kinds[i] == kind] for kind in ("To", "Cc", "Bcc")}
    body = {
        "From": _boxes([mail.sender]),
        **{kind: _boxes(boxes) for kind, boxes in chosen.items()},
        "ReplyTo": _boxes(mail.reply_to),
        "Subject": mail.content.subject,
        "HtmlBody": mail.content.html,
        "TextBody": mail.content.text,
        "TrackOpens": mail.track_opens,
        "TrackLinks": "HtmlAndText" if mail.track_clicks else "None",
        "MessageStream": stream,
        "Headers": [{"Name": n, "Value": v} for n, v in (*mail.headers, ("X-Postroom-Id", mail.id))],
        "Attachments": [_file(file) for file in mail.attachments],
    }
    return {name: value for name, value in body.items() if value not in ("", None, [])}


def _boxes(boxes: list[Address] | tuple[Address, ...]) -> str:
    return ", ".join(map(_box, boxes))


def _box(box: Address) -> str:
    name = box.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}" <{box.address}>' if name else box.address


def _file(file: Attachment) -> dict[str, Any]:
    content: bytes | str = file.encoded.replace(b"\n", b"").decode() if file.encoded else file.data
    told = {"Name": file.name, "ContentType": file.content_type, "Content": content}
    return told if file.cid is None else {**told, "ContentID": f"cid:{file.cid}"}
