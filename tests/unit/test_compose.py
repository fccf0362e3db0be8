"""The header of a composed message, judged by the standard library's two parsers and a raw line splitter."""

import email
import email.policy
import re
from email.header import decode_header
from email.utils import getaddresses

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from postroom.compose import ComposeError, Wire, compose
from postroom.compose.words import encode_words
from postroom.message import Address, Content, Mail
from postroom.text import find_forbidden

# The fields of a message without extras, in their order.
fixed = ["From", "To", "Subject", "Date", "Message-ID", "X-Postroom-Id", "MIME-Version"]
fixed += ["Content-Type", "Content-Transfer-Encoding"]
SMUGGLED = "=?utf-8?q?hi=0D=0ABcc:_e@x.example?="

# Any text of one line, with more of what headers are sensitive to.
LINE = st.text(
    st.one_of(st.sampled_from("=?_\"\\<>@,;:() 'aZé日📬"), st.characters(codec="utf-8")), max_size=120
).filter(lambda text: find_forbidden(text) is None)
HOSTILE = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "\r\n",
                "\n",
                "\r",
                "\r\nBcc: e@x.example",
                "\n\nbody",
                "\x00",
                "\x85",
                "\u2028",
                "\u202e",
                "\x0b",
                "\t",
            ]
        ),
        st.sampled_from(
            [SMUGGLED, "=?", "?=", '"', "\\", '" <e@x.example>, "', "e@x.example", ",", ";", "(", " "]
        ),
        st.sampled_from(["x" * 2000, "x " * 600, "é" * 700, " " * 1200, "group: e@x.example;", "\ud800"]),
        st.text(max_size=5),
    ),
    min_size=1,
    max_size=5,
).map("".join)
FEW = settings(max_examples=120, deadline=None)


def make(subject="Hello", **fields):
    given_fields = {
        "id": "orders-01JD8X",
        "message_id": "<01JD8X@shop.example>",
        "date": 1_700_000_000.7,
        "sender": Address("orders@shop.example", "Shop"),
        "to": (Address("ada@example.com"),),
        "content": Content(subject, "Hi\n"),
    }
    return Mail(**(given_fields | fields))


def modern(data):
    return email.message_from_string(data.decode(), policy=email.policy.default)


def classic(data, name):
    """The field as the old parser gives it, unfolded."""
    return re.sub(r"\r?\n", "", email.message_from_string(data.decode())[name])


def decoded(value):
    """Decode encoded words by the old rules."""
    return "".join(
        text.decode(charset or "ascii") if isinstance(text, bytes) else text
        for text, charset in decode_header(value)
    )


def names(data):
    head = data.partition(b"\r\n\r\n")[0].split(b"\r\n")
    return [line.partition(b":")[0].decode() for line in head if line[:1] not in (b" ", b"\t")]


def lines(data):
    return data.partition(b"\r\n\r\n")[0].split(b"\r\n")


def test_a_plain_mail_is_what_one_would_write_by_hand():
    """A small ASCII mail comes out byte for byte as expected."""
    expected = (
        "From: Shop <orders@shop.example>\r\n"
        'Reply-To: "Help, please" <help@shop.example>\r\n'
        "To: Ada Lovelace <ada@example.com>, bob@example.com\r\n"
        "Cc: =?utf-8?q?J=C3=BCrgen?= <j@example.com>\r\n"
        "Subject: Your order\r\n"
        "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
        "Message-ID: <01JD8X@shop.example>\r\n"
        "X-Postroom-Id: orders-01JD8X\r\n"
        "X-Order: 10023\r\n"
        "X-TM-CLIENT-REF: order-10023\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        "Content-Transfer-Encoding: 7bit\r\n"
        "\r\n"
        "Hi\r\n"
    )
    mail = make(
        "Your order",
        reply_to=(Address("help@shop.example", "Help, please"),),
        to=(Address("ada@example.com", "Ada Lovelace"), Address("bob@example.com")),
        cc=(Address("j@example.com", "Jürgen"),),
        bcc=(Address("secret@example.com", "Secret"),),
        headers=(("X-Order", "10023"),),
    )
    composed = compose(mail, extra=(("X-TM-CLIENT-REF", "order-10023"),))
    assert expected == composed.data.decode()
    assert not composed.eight_bit
    assert not composed.smtputf8


@given(LINE)
@example("")
@example(" a  b ")
@example(SMUGGLED)
@example("x" * 2000)
@example("word " * 300)
@example("a" + " " * 1100 + "b")
@FEW
def test_subject_survives(subject):
    """Both parsers read the subject put in, on lines of at most 76 unless one plain word is longer."""
    data = compose(make(subject)).data
    assert subject.strip() == str(modern(data)["Subject"]).strip()
    assert subject == decoded(classic(data, "Subject"))
    assert fixed == names(data)
    longest_word = max(map(len, subject.split(" "))) if subject.isascii() else 0
    assert all(len(line) <= max(76, len("Subject: ") + min(longest_word, 989)) for line in lines(data))


@given(LINE)
@example('Evil" <e@x.example>, "y')
@example("\\")
@example("e@x.example")
@example("Q. Public")
@example("x" * 300)
@example(SMUGGLED)
@FEW
def test_display_name_survives(name):
    """A display name comes back as it was, and adds neither recipient nor field, whatever is in it."""
    data = compose(make(to=(Address("ada@example.com", name), Address("bob@example.com", name)))).data
    raw = classic(data, "To")
    expected = ["ada@example.com", "bob@example.com"]
    assert expected == [where for _, where in getaddresses([raw])]
    assert expected == [a.addr_spec for a in modern(data)["To"].addresses]
    assert [name.strip()] * 2 == [decoded(shown).strip() for shown, _ in getaddresses([raw])]
    assert fixed == names(data)


@given(
    st.sampled_from(["subject", "name", "header", "extra", "header name", "id", "message_id", "address"]),
    HOSTILE,
)
@settings(max_examples=400, deadline=None)
def test_hostile_input_adds_nothing(place, value):
    """A hostile value is refused or harmless: never one more header field, recipient or line too long."""
    mails = {
        "subject": lambda: compose(make(value)),
        "name": lambda: compose(make(to=(Address("ada@example.com", value),))),
        "header": lambda: compose(make(headers=(("X-A", value),))),
        "extra": lambda: compose(make(), extra=(("X-A", value),)),
        "header name": lambda: compose(make(headers=((f"X-A{value}", "a"),))),
        "id": lambda: compose(make(id=value)),
        "message_id": lambda: compose(make(message_id=f"<a{value}@shop.example>")),
        "address": lambda: compose(make(to=(Address(f"{value}ada@example.com"),))),
    }
    try:
        data = mails[place]().data
    except ComposeError:
        return
    given_names = {"header": ["X-A"], "extra": ["X-A"], "header name": [f"X-A{value}"]}.get(place, [])
    assert fixed[:6] + given_names + fixed[6:] == names(data)
    assert fixed[:6] + given_names + fixed[6:] == email.message_from_string(data.decode()).keys()
    mailbox = [f"{value}ada@example.com" if place == "address" else "ada@example.com"]
    assert mailbox == [a.addr_spec for a in modern(data)["To"].addresses]
    assert mailbox == [where for _, where in getaddresses([classic(data, "To")])]
    assert all(len(line) <= 998 for line in data.split(b"\r\n"))


@pytest.mark.parametrize(
    "value", ["a\r\nBcc: e@x.example", "a\nb", "a\rb", "a\x00b", "a\x85b", "a\u2028b", "a\u202eb"]
)
@pytest.mark.parametrize("place", ["subject", "name", "header", "list header", "id", "message_id"])
def test_controls_in_a_header_are_refused(place, value):
    """A control character in any header input ends the composing, and the reason does not repeat it."""
    mails = {
        "subject": make(value),
        "name": make(sender=Address("a@shop.example", value)),
        "header": make(headers=(("X-A", value),)),
        "list header": make(headers=(("References", value),)),
        "id": make(id=value),
        "message_id": make(message_id=f"<{value}@shop.example>"),
    }
    with pytest.raises(ComposeError) as caught:
        compose(mails[place])
    assert value not in str(caught.value)


@pytest.mark.parametrize("name", ["From", "bcc", "Subject", "Content-Type", "X A", "X-A:", "X-Ä", ""])
def test_no_field_of_ours_can_be_given(name):
    """Neither headers nor extra can name a field that Postroom writes itself, nor a malformed one."""
    with pytest.raises(ComposeError):
        compose(make(headers=((name, "a"),)))
    with pytest.raises(ComposeError):
        compose(make(), extra=((name, "a"),))


@pytest.mark.parametrize(
    "address", ["", "a", "a@b@c.example", "a@b.example, e@x.example", "=?utf-8?q?a?=@b.example"]
)
def test_an_address_out_of_form_is_refused(address):
    """An address that was not parsed before does not reach the header."""
    with pytest.raises(ComposeError):
        compose(make(to=(Address(address),)))


def test_address_beyond_ascii_asks_for_smtputf8():
    """A local part beyond ASCII stands raw in the header, and the channel is told; bcc asks for nothing."""
    composed = compose(make(to=(Address("jürgen@example.com", "Jürgen"),)))
    assert "To: =?utf-8?q?J=C3=BCrgen?= <jürgen@example.com>\r\n" in composed.data.decode()
    assert composed.eight_bit
    assert composed.smtputf8
    assert not compose(make(bcc=(Address("jürgen@example.com"),))).smtputf8


def test_a_sender_stands_beside_from():
    """Who sends it for its author is named in Sender, once; without one there is no such field."""
    data = compose(make(submitter=Address("post@shop.example", "Shop, Post"))).data
    assert [fixed[0], "Sender", *fixed[1:]] == names(data)
    assert ("Shop, Post", "post@shop.example") == getaddresses([classic(data, "Sender")])[0]
    with pytest.raises(ComposeError):
        compose(make(submitter=Address("a@b.example, e@x.example")))


NO_UTF8 = Wire(smtputf8=False)


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ({"cc": (Address("jörg@example.com"), Address("kay@example.com"))}, ("ada@example.com", "kay@example.com")),
        ({"cc": (Address("jörg@example.com"),)}, ("ada@example.com", None)),
        ({"to": (Address("jörg@example.com"),)}, ("undisclosed-recipients:;", None)),
    ],
)  # fmt: skip
def test_without_smtputf8_the_header_names_who_can_be_reached(boxes, expected):
    """Others have their mail all the same; where From or Reply-To is beyond ASCII, nothing can be left out."""
    composed = compose(make(**boxes), wire=NO_UTF8)
    assert not composed.smtputf8
    assert expected == tuple(modern(composed.data)[name] for name in ("To", "Cc"))
    assert compose(make(reply_to=(Address("jörg@example.com"),)), wire=NO_UTF8).smtputf8
    assert compose(make(sender=Address("jörg@example.com")), wire=NO_UTF8).smtputf8


def test_many_recipients_fold_between_mailboxes():
    """A list of fifty recipients comes back whole, on lines of a readable length."""
    to = tuple(Address(f"person{n}@example.com", f"Person Número {n}") for n in range(50))
    data = compose(make(to=to)).data
    assert [(a.name, a.address) for a in to] == [
        (a.display_name, a.addr_spec) for a in modern(data)["To"].addresses
    ]
    assert all(len(line) <= 78 for line in lines(data))


def test_structured_values_fold_at_spaces():
    """References and List-Unsubscribe are never encoded, only folded where they hold spaces."""
    references = " ".join(f"<message-{n}@shop.example>" for n in range(30))
    data = compose(make(headers=(("References", references), ("In-Reply-To", "<a@b.example>")))).data
    assert references == classic(data, "References")
    assert all(len(line) <= 76 for line in lines(data))
    with pytest.raises(ComposeError):
        compose(make(headers=(("References", "<" + "x" * 1000 + ">"),)))


def test_the_same_mail_gives_the_same_bytes():
    """Every attempt composes equal bytes, boundaries included."""
    mail = make(content=Content("s", "text", "<p>html</p>"))
    assert compose(mail) == compose(mail)


def test_postroom_id_stands_once():
    """The id is written even if the headers already carry it, but not twice."""
    data = compose(make(headers=(("X-Postroom-Id", "orders-01JD8X"),))).data
    assert fixed == names(data)


@given(LINE.filter(bool), st.integers(-50, 80))
@FEW
def test_encoded_words_stand_alone(text, room):
    """Each encoded word is at most 75 characters, decodes on its own, and together they are the text."""
    words = encode_words(text, room)
    assert text == "".join(decoded(word) for word in words)
    assert all(len(word) <= 75 for word in words)
    assert len(words[0]) <= max(room, 28)
