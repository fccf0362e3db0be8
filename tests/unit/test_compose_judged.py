"""Composed messages as npm's mailparser reads them, and two thousand hostile values that must not become anything."""

import base64
import email
import email.policy
import hashlib
import random

import pytest

from postroom.compose import ComposeError, Wire, compose
from postroom.message import Address, Attachment, Content, Mail
from tests.npm import ask

FIXED = ["From", "To", "Subject", "Date", "Message-ID", "X-Postroom-Id", "MIME-Version"]
WORDS = (
    "order parcel Ada Grüße Überraschung naïve Москва привет 日本語 テスト العربية שלום नमस्ते 🎉 👩‍👩‍👧 "
    'O\'Neil 50% =?x? ?= a=b "quoted" back\\slash (paren) <angle> semi;colon comma, at@sign tab/slash x'
    + "y"
    * 90
).split(" ")
TYPES = ["application/pdf", "text/plain", "image/png", "text/calendar; method=REQUEST", "message/rfc822"]


def words(rng, most):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def box(rng, number):
    name = words(rng, 4) if rng.random() < 0.7 else ""
    return Address(
        f"{rng.choice(['ada', 'o.neil', 'x+tag', 'a_b'])}{number}@{rng.choice(['example.com', 'xn--mnchen-3ya.example'])}",
        name,
    )


def body(rng):
    lines = [words(rng, rng.choice([3, 12, 200])) for _ in range(rng.randint(1, 6))]
    return "\n".join([*lines, *rng.choice([[], [""], ["", "."], ["..", "From x"], ["trailing  ", "\ttab"]])])


def random_mail(seed):
    rng = random.Random(seed)
    files = tuple(
        Attachment(
            f"{words(rng, 3).replace('/', '_')}.bin",
            rng.choice(TYPES),
            rng.randbytes(rng.choice([0, 1, 57, 3_000])),
        )
        for _ in range(rng.choice([0, 0, 1, 3]))
    )
    html = f"<p>{body(rng)}</p>" if rng.random() < 0.7 else None
    if html and rng.random() < 0.4:
        files += (Attachment("pixel.png", "image/png", rng.randbytes(99), cid="pixel.1"),)
    return Mail(
        id=f"orders-{seed}",
        message_id=f"<{seed}.x@shop.example>",
        date=1_700_000_000 + seed,
        sender=box(rng, 0),
        to=tuple(box(rng, 10 + n) for n in range(rng.choice([1, 1, 3, 20]))),
        cc=tuple(box(rng, 40 + n) for n in range(rng.choice([0, 2]))),
        bcc=(Address("hidden@example.com"),),
        reply_to=tuple(box(rng, 60 + n) for n in range(rng.choice([0, 1]))),
        content=Content(words(rng, 12), body(rng) if html is None or rng.random() < 0.8 else None, html),
        headers=(("X-Note", words(rng, 8)),) if rng.random() < 0.5 else (),
        attachments=files,
    )


def lines_of(text):
    """A body's lines: line ends are the wire's, and the last one is nobody's."""
    return (text or "").replace("\r\n", "\n").rstrip("\n")


def seen(boxes):
    """As mailparser shows them: a domain as its reader would write it."""
    return [[one.address.replace("xn--mnchen-3ya", "münchen"), one.name] for one in boxes]


@pytest.mark.timeout(180)
def test_mailparser_sees_what_was_asked_for():
    """Headers, addresses, names, parts and the bytes of attachments, on 250 mails."""
    mails = [random_mail(seed) for seed in range(250)]
    composed = [compose(mail, wire=Wire(eight_bit=number % 2 > 0)).data for number, mail in enumerate(mails)]
    assert 20 < sum(not data.isascii() for data in composed)
    answers = ask("read-mail.mjs", [base64.b64encode(data).decode() for data in composed])
    for mail, found in zip(mails, answers, strict=True):
        assert seen([mail.sender]) == found["from"], mail.id
        assert (seen(mail.to), seen(mail.cc), seen(mail.reply_to)) == (
            found["to"],
            found["cc"],
            found["replyTo"],
        ), mail.id
        assert ([], mail.content.subject, mail.message_id) == (
            found["bcc"],
            found["subject"],
            found["messageId"],
        ), mail.id
        assert (lines_of(mail.content.text), lines_of(mail.content.html)) == (
            lines_of(found["text"]),
            lines_of(found["html"]),
        ), mail.id
        assert len(mail.attachments) == len(found["attachments"]), mail.id
        there = sorted((f["sha256"], f["name"], f["cid"]) for f in found["attachments"])
        assert (
            sorted((hashlib.sha256(f.data).hexdigest(), f.name, f.cid) for f in mail.attachments) == there
        ), mail.id
        assert not [name for name in found["headers"] if name.lower() == "bcc"]


# The values of the security rules: controls of every kind, separators, surrogates, overrides, encoded words,
# what looks like a field, an address, a group or a parameter, and lengths.
CONTROLS = [
    chr(point)
    for point in [
        *range(0x20),
        *range(0x7F, 0xA0),
        0x2028,
        0x2029,
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
        0xD800,
        0xDFFF,
    ]
]
TRICKS = [
    "\r\nBcc: evil@x.example",
    "\nBcc: evil@x.example",
    "\rBcc: evil@x.example",
    "\r\n\r\n<script>",
    "\n.\nMAIL FROM:<e@x.example>",
    "=?utf-8?q?hi=0D=0ABcc:_evil@x.example?=",
    "=?utf-8?b?DQpCY2M6IGV2aWxAeC5leGFtcGxl?=",
    "=?",
    "?=",
    "=?utf-8?q?=00?=",
    '" <evil@x.example>, "',
    "evil@x.example, ",
    "a <evil@x.example>",
    "group: evil@x.example;",
    "(comment",
    ")",
    "\\",
    '\\"',
    ",",
    ";",
    ":",
    '"; filename="x.exe',
    "'; filename*=utf-8''x.exe",
    "../../etc/passwd",
    "x" * 2_000,
    "x " * 700,
    " " * 1_500,
    "é" * 900,
    "日" * 500,
    "📬" * 300,
    "\u200b",
    "\u00ad",
    "\ufeff",
    "a\u0308" * 200,
]
FIELDS = [
    "subject",
    "to_name",
    "from_name",
    "reply_name",
    "header",
    "file",
    "text",
    "to_address",
    "header_name",
    "cid",
]


def hostile_values():
    """Two thousand: each trick and control alone and in each place of a plain text, then in pairs."""
    rng = random.Random(5)
    found = [form.format(bad) for bad in [*CONTROLS, *TRICKS] for form in ("{}", "a{}b", "{} b", "b {}")]
    while len(found) < 2_000:
        found.append("".join(rng.choice([*CONTROLS, *TRICKS, "a", " "]) for _ in range(rng.randint(2, 4))))
    return found


def hostile_mail(value, field):
    def at(name, plain):
        return value if field == name else plain

    return Mail(
        id="orders-1",
        message_id="<1@shop.example>",
        date=1_700_000_000,
        sender=Address("orders@shop.example", at("from_name", "Shop")),
        to=(Address(at("to_address", "ada@example.com"), at("to_name", "Ada")),),
        bcc=(Address("hidden@example.com"),),
        reply_to=(Address("help@shop.example", at("reply_name", "Help")),),
        content=Content(at("subject", "Hello"), at("text", "Hi"), "<p>Hi</p>"),
        headers=((at("header_name", "X-Note"), at("header", "plain")),),
        attachments=(Attachment(at("file", "a.pdf"), "application/pdf", b"%PDF", cid=at("cid", None)),),
    )


@pytest.mark.timeout(180)
def test_two_thousand_hostile_values():
    """Each is refused, or is text where it was put: no header field and no recipient more, by a raw look and two parsers."""
    composed = []
    expected = [
        "From",
        "Reply-To",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "X-Postroom-Id",
        "X-Note",
        "MIME-Version",
        "Content-Type",
    ]
    for number, value in enumerate(hostile_values()):
        field = FIELDS[number % len(FIELDS)]
        for one in {field, "subject" if number % 2 else "to_name"}:
            try:
                data = compose(hostile_mail(value, one)).data
            except ComposeError:
                continue
            head, blank, _ = data.partition(b"\r\n\r\n")
            assert blank
            assert b"\0" not in data
            assert data.count(b"\r\n") == data.count(b"\r") == data.count(b"\n")
            assert 998 >= max(map(len, data.split(b"\r\n")))
            names = [
                line.split(b":")[0].decode() for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")
            ]
            assert sorted(names) == sorted(
                value if one == "header_name" and n == "X-Note" else n for n in expected
            ), (one, number)
            composed.append((one, value, data))
    assert 2_000 == len(hostile_values())
    assert 400 < len(composed)  # the others hold what no header takes
    for one, value, data in composed[:: len(composed) // 300 + 1]:
        parsed = email.message_from_bytes(data, policy=email.policy.default)
        assert 1 == len(parsed["To"].addresses), (one, value)
    read = ask("read-mail.mjs", [base64.b64encode(data).decode() for _, _, data in composed])
    for (one, value, _), found in zip(composed, read, strict=True):
        wanted = value if one == "to_address" else "ada@example.com"
        assert ([wanted], []) == ([box[0] for box in found["to"]], found["bcc"]), (one, value)
        assert len(expected) == len(found["headers"]), (one, value)
        if one == "subject":
            assert value.strip() == found["subject"].strip(), value
        if one == "to_name":
            assert " ".join(value.split()) == " ".join(found["to"][0][1].split()), value
