"""The body of a composed message: texts, inline images, attachments, and the final check."""

import email
import email.policy
import re
from email.utils import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from postroom.compose import ComposeError, Wire, compose
from postroom.compose.attachment import is_cid
from postroom.compose.body import boundary_stem, text_part
from postroom.compose.check import LongLineError, to_wire
from postroom.compose.message import _compose
from postroom.files import CONTENT_TYPE
from postroom.message import Address, Attachment, Content, Mail
from postroom.text import find_forbidden, find_forbidden_in_body

BODY = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=300),
    st.text(st.sampled_from(" \t\r\n.=-_aé日"), max_size=200),
    st.builds(
        lambda word, count: word * count, st.sampled_from(["x", "é", "x ", "\r", ".\n"]), st.integers(0, 2500)
    ),
).filter(lambda text: find_forbidden_in_body(text) is None)
NAME = st.text(
    st.one_of(st.sampled_from("\"\\;='*%. aé日📬"), st.characters(codec="utf-8")), max_size=90
).filter(lambda text: find_forbidden(text) is None)
FEW = settings(max_examples=120, deadline=None)
SEVEN_BIT, EIGHT_BIT = WIRES = (Wire(), Wire(eight_bit=True))
PDF = Attachment("a.pdf", "application/pdf", b"%PDF")
PNG = Attachment("logo.png", "image/png", b"\x89PNG", cid="logo@shop")


def make(text=None, html=None, attachments=()):
    return Mail(
        id="orders-01JD8X",
        message_id="<01JD8X@shop.example>",
        date=1_700_000_000,
        sender=Address("orders@shop.example"),
        to=(Address("ada@example.com"),),
        content=Content("s", text, html),
        attachments=attachments,
    )


def parsed(mail, wire=SEVEN_BIT):
    return email.message_from_bytes(compose(mail, wire=wire).data, policy=email.policy.default)


def normal(text):
    """The text with CRLF line ends."""
    return re.sub("\r\n|\r|\n", "\r\n", text)


def text_of(part):
    return part.get_payload(decode=True).decode()


def shape(part):
    """The nesting of the parts, as nested lists of content types."""
    if part.is_multipart():
        return [part.get_content_subtype(), *map(shape, part.iter_parts())]
    return part.get_content_type()


@given(BODY, st.sampled_from(WIRES))
@example("x" * 2000, EIGHT_BIT)
@example("trailing space \n\ttab\t\n.\n..\nFrom here", SEVEN_BIT)
@example("é" * 2000, SEVEN_BIT)
@example("é" * 499, EIGHT_BIT)
@FEW
def test_a_single_text_survives(text, wire):
    """The text comes back with CRLF line ends, at most one line end added, in lines of at most 998 bytes."""
    composed = compose(make(text), wire=wire)
    message = email.message_from_bytes(composed.data, policy=email.policy.default)
    assert text_of(message) in (normal(text), normal(text) + "\r\n")
    assert composed.data.endswith(b"\r\n")
    assert (
        composed.eight_bit
        == (message["Content-Transfer-Encoding"] == "8bit")
        == (not composed.data.isascii())
    )
    assert wire.eight_bit or not composed.eight_bit
    assert message.get_content_charset() == "utf-8"
    assert all(len(line) <= 998 for line in composed.data.split(b"\r\n"))


@given(BODY, BODY, st.sampled_from(WIRES))
@FEW
def test_text_and_html_survive_exactly(text, html, wire):
    """In a multipart both texts come back to the byte, text first."""
    message = parsed(make(text, html), wire)
    assert [normal(text), normal(html)] == [text_of(part) for part in message.iter_parts()]
    assert not message.defects


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello\n" * 300, "7bit"),
        ("x" * 998, "7bit"),
        ("x" * 999, "quoted-printable"),
        ("Die Größe ist leider falsch, danke", "quoted-printable"),
        ("Здравствуйте", "base64"),
    ],
)
def test_transfer_encoding(text, expected):
    """ASCII in lines that fit travels as it is, other text in the shorter of the two encodings."""
    assert expected == parsed(make(text))["Content-Transfer-Encoding"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello\n" * 300, "7bit"),
        ("x" * 999, "quoted-printable"),
        ("Die Größe ist leider falsch, danke", "8bit"),
        ("é" * 499 + "\n" + "日" * 332, "8bit"),
        ("é" * 500, "base64"),
    ],
)
def test_transfer_encoding_where_eight_bits_may_travel(text, expected):
    """With 8BITMIME text beyond ASCII is sent as it is, where its lines fit."""
    assert expected == parsed(make(text), EIGHT_BIT)["Content-Transfer-Encoding"]


def test_who_holds_eight_bits_says_so():
    """RFC 2045 §6.4: a multipart around an 8-bit text is 8bit itself, and one around others is not."""
    outer = parsed(make("t", "<p>ü</p>", (PDF, PNG)), EIGHT_BIT)
    inner, file = outer.iter_parts()
    text, related = inner.iter_parts()
    html, image = related.iter_parts()
    parts = (outer, inner, related, html, text, file, image)
    assert ["8bit"] * 4 + ["7bit", "base64", "base64"] == [p["Content-Transfer-Encoding"] for p in parts]
    assert parsed(make("t", "h", (PDF,)), EIGHT_BIT)["Content-Transfer-Encoding"] is None


@pytest.mark.parametrize(
    ("mail", "expected"),
    [
        (make("t"), "text/plain"),
        (make(None, "h"), "text/html"),
        (make("t", "h"), ["alternative", "text/plain", "text/html"]),
        (make(None, "h", (PNG,)), ["related", "text/html", "image/png"]),
        (make("t", None, (PNG,)), ["mixed", "text/plain", "image/png"]),
        (
            make("t", "h", (PDF, PNG)),
            [
                "mixed",
                ["alternative", "text/plain", ["related", "text/html", "image/png"]],
                "application/pdf",
            ],
        ),
    ],
)
def test_nesting(mail, expected):
    """Images with a cid lie beside the html that shows them, other attachments beside the whole content."""
    assert expected == shape(parsed(mail))


def test_an_inline_image_can_be_referred_to():
    """An inline image says so and carries its cid."""
    image = list(parsed(make(None, "h", (PNG,))).iter_parts())[1]
    assert f"<{PNG.cid}>" == image["Content-ID"]
    assert image.get_content_disposition() == "inline"
    assert PNG.data == image.get_payload(decode=True)


@given(NAME, st.binary(max_size=300))
@example('a";x=".pdf', b"")
@example("\\", b"x")
@example("<>", b"x")
@example("Отчёт за год.pdf", b"x")
@example("é" * 200 + ".pdf", b"x")
@example("x" * 300 + ".pdf", b"x")
@example("=?utf-8?q?a?=.pdf", b"x")
@FEW
def test_attachment_survives(name, data):
    """An attachment comes back with its bytes and its name, as one file."""
    composed = compose(make("t", None, (Attachment(name, "application/pdf", data), PDF))).data
    for policy in (email.policy.default, email.policy.compat32):
        message = email.message_from_bytes(composed, policy=policy)
        _, file, other = message.get_payload()
        # The older reader takes off angle brackets, whichever way the name was written.
        assert (file.get_filename() or "").strip() in (name.strip(), unquote(name.strip()).strip())
        assert data == file.get_payload(decode=True)
        assert PDF.name == other.get_filename()
        assert other.keys() == file.keys()
        assert str(file["Content-Type"]).isascii()
    assert all(len(line) <= 998 for line in composed.split(b"\r\n"))


@given(NAME)
@FEW
def test_every_file_name_has_a_plain_fallback(name):
    """A reader without RFC 2231 finds an ASCII name of bounded length."""
    message = parsed(make("t", None, (Attachment(name, "application/pdf", b""),)))
    fallback = list(message.iter_parts())[1].get_param("name", "")
    assert fallback.isascii()
    assert len(fallback) <= 60


@pytest.mark.parametrize(
    "name", ["a\r\nX: y.pdf", "a\nb", "a\x00", "invoice\u202efdp.exe", "a\x85b", "\ud800"]
)
def test_controls_in_a_file_name_are_refused(name):
    """A file name that could end a line or read backwards is refused."""
    with pytest.raises(ComposeError):
        compose(make("t", None, (Attachment(name, "application/pdf", b""),)))


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/pdf", True),
        ("image/svg+xml", True),
        ("text/csv; charset=utf-8", True),
        ("text/calendar;method=REQUEST; charset=utf-8", True),
        ("", False),
        ("pdf", False),
        ("application/", False),
        ("application/pdf\r\nX: y", False),
        ("application/pdf\n", False),
        ("application/pdf; name=x.exe", False),
        ("application/pdf; NAME=x.exe", False),
        ("text/plain; boundary=x", False),
        ('text/plain; charset="utf-8"', False),
        ("a/b/c", False),
        ("x" * 65 + "/b", False),
    ],
)
def test_content_types(content_type, expected):
    """A content type is two tokens with plain parameters, and the composer refuses any other."""
    assert expected == bool(CONTENT_TYPE.fullmatch(content_type))
    mail = make("t", None, (Attachment("a", content_type, b""),))
    if expected:
        assert content_type.partition(";")[0] == list(parsed(mail).iter_parts())[1].get_content_type()
    else:
        with pytest.raises(ComposeError):
            compose(mail)


@pytest.mark.parametrize("content_type", ["message/rfc822", "multipart/mixed", "Message/Partial"])
def test_composite_types_travel_as_opaque_files(content_type):
    """What a receiver would unpack is sent as a file, since base64 is not allowed for it."""
    mail = make("t", None, (Attachment("a.eml", content_type, b"Bcc: e@x.example\r\n\r\n"),))
    expected = ["mixed", "text/plain", "application/octet-stream"]
    assert expected == shape(parsed(mail))


@pytest.mark.parametrize(
    ("cid", "expected"), [("logo", True), ("a.b-c_1@x", True), ("a>b", False), ("", False), ("a b", False)]
)
def test_cids(cid, expected):
    """A cid is a plain name, and the composer refuses any other."""
    assert expected == is_cid(cid)
    mail = make(None, "h", (Attachment("a.png", "image/png", b"", cid),))
    if not expected:
        with pytest.raises(ComposeError):
            compose(mail)


def test_a_boundary_is_never_in_the_content():
    """A text that holds the boundary it would get makes it another one."""
    first = boundary_stem("<01JD8X@shop.example>", [])
    text = f"--{first}-a\nContent-Type: text/html\n\nsmuggled\n--{first}-a--\n"
    assert first != boundary_stem("<01JD8X@shop.example>", [text_part("text/plain", text, eight_bit=False)])
    message = parsed(make(text, "h"))
    assert [normal(text), "h"] == [text_of(part) for part in message.iter_parts()]


@pytest.mark.parametrize("content", [Content("s"), Content("s", "a\x00b"), Content("s", "a\ud800b")])
def test_content_that_cannot_be_sent(content):
    """Content without text or html, with a NUL in a plain part, or beyond UTF-8 is refused."""
    mail = make("t")
    with pytest.raises(ComposeError):
        compose(
            Mail(**{field: getattr(mail, field) for field in mail.__struct_fields__} | {"content": content})
        )


@pytest.mark.parametrize(
    "draft",
    [
        b"A: 1\nB: 2\n\nx",
        b"A: 1\nB: 2\n\nx\ry\n",
        b"A: 1\nB: 2\n\nx\r\n",
        b"A: 1\r\nB: 2\r\n\r\nx\r\n",
        b"A: 1\nB: 2\n\n\n\r\n",
        b"A: 1\nB: 2\n\nx\x00\n",
        b"A: 1\nB: 2\n\n" + b"x" * 999 + b"\n",
        b"A: 1\nB: 2\n\nx\n" + b"x" * 999 + b"\ny\n",
        b"A: " + b"x" * 996 + b"\nB: 2\n\nx\n",
        b"A: 1\nB: 2\nC: 3\n\nx\n",
        b"A: 1\n\nB: 2\n",
        b"B: 1\nA: 2\n\nx\n",
        b"a: 1\nB: 2\n\nx\n",
        b"A: 1\nB: 2\n",
        b"A: 1\n \nB: 2\n\nx\n",
        b" A: 1\nA: 1\nB: 2\n\nx\n",
        b"A: 1\nB : 2\n\nx\n",
        b"",
    ],
)
def test_the_final_check_refuses(draft):
    """Drafts that a receiver could read in another way than meant are refused."""
    with pytest.raises(ComposeError):
        to_wire(draft, ["A", "B"])


@pytest.mark.parametrize(
    "draft",
    [
        b"A: 1\nB: 2\n\n",
        b"A: 1\n folded\n\tagain\nB: 2\n\n \n.\n\nC: 3\n",
        b"A: 1\nB: 2\n\n" + (b"x" * 998 + b"\n") * 3,
    ],
)
def test_the_final_check_accepts(draft):
    """Folded fields, lines of exactly 998 bytes and anything in the body are fine, and end in CRLF."""
    assert draft.split(b"\n") == to_wire(draft, ["A", "B"]).split(b"\r\n")


@given(st.binary(max_size=60))
@FEW
def test_no_line_end_stands_alone(body):
    """Whatever is in a draft: it is refused, or each CR of the result is followed by an LF and each LF follows a CR."""
    try:
        data = to_wire(b"A: 1\n\n" + body + b"\n", ["A"])
    except ComposeError:
        assert b"\r" in body or b"\0" in body
    else:
        assert data.count(b"\r") == data.count(b"\n") == data.count(b"\r\n")
        assert data.endswith(b"\r\n")


@given(st.lists(st.integers(0, 1100), max_size=8))
@FEW
def test_the_final_check_measures_every_line(lengths):
    """The jumping measure agrees with counting each line."""
    draft = b"A: 1\n\n" + b"".join(b"x" * length + b"\n" for length in lengths)
    if max(lengths, default=0) <= 998:
        to_wire(draft, ["A"])
    else:
        with pytest.raises(ComposeError):
            to_wire(draft, ["A"])


SHORT, LONG = "a short line\n" * 300, "x" * 1200 + "\n"
LINES = st.lists(st.sampled_from([SHORT, LONG, "é" * 600 + "\n", "\n", "end"]), min_size=1, max_size=4)


@FEW
@given(LINES.map("".join), st.one_of(st.none(), LINES.map("".join)), st.sampled_from(WIRES))
@example(LONG + 2 * SHORT, None, SEVEN_BIT)
@example(2 * SHORT + LONG, SHORT, EIGHT_BIT)
def test_a_wrong_guess_about_its_lines_changes_nothing(text, html, wire):
    """Where only the middle of a text has short lines, the mail is what it is without a guess."""
    mail = make(text, html)
    assert _compose(mail, (), wire, guess=False) == compose(mail, wire=wire)


def test_a_guess_is_made_and_may_be_wrong():
    """Or the test above would compare a thing with itself."""
    with pytest.raises(LongLineError):
        _compose(make(LONG + 2 * SHORT), (), SEVEN_BIT, guess=True)
