"""Which header fields a caller may set, and to what."""

import pytest

from postroom.decode import Fault, join
from postroom.headers import check_headers, is_structured, is_wellformed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Order", "10023"),
        ("x-order", "Größe 5"),
        ("X-" + "a" * 62, "x" * 998),
        ("List-Unsubscribe", "<https://shop.example/u/1>, <mailto:u@shop.example>"),
        ("In-Reply-To", "<a@shop.example>"),
        ("references", "<a@shop.example> <b@shop.example>"),
        ("Auto-Submitted", "auto-generated"),
        ("Precedence", "bulk"),
        ("Importance", "high"),
    ],
)
def test_allowed(name, value):
    """A caller may set X-* and the few fields on the list."""
    assert not check_headers({name: value})


@pytest.mark.parametrize(
    "name",
    [
        *("From", "Sender", "To", "Cc", "Bcc", "Reply-To", "Subject", "Date", "Message-ID", "MIME-Version"),
        *(
            "Content-Type",
            "content-transfer-encoding",
            "Received",
            "Return-Path",
            "DKIM-Signature",
            "ARC-Seal",
        ),
        *("Authentication-Results", "Resent-To", "X-TM-CLIENT-REF", "x-tm-bounce", "X-Postroom-Id"),
        *("", "X A", "X-A:", "X-A\r\nBcc", "X-Ä", "1X", "-X", "X-" + "a" * 63, "X_A", "X-A\n"),
    ],
)
def test_name_refused(name):
    """Fields of the message's structure, reserved ones and malformed names are refused, each at its place."""
    faults = check_headers({name: "value"})
    assert [join("/headers", name)] == [fault.pointer for fault in faults]


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            " ",
            " a",
            "a ",
            "a\r\nBcc: e@x.example",
            "a\nb",
            "a\rb",
            "a\tb",
            "a\x00b",
            "a\x85b",
            "a\u2028b",
        ),
        *("a\u202eb", "a\ud800b", "=?utf-8?q?hi=0D=0ABcc:_e@x?=", "x" * 999, "é" * 500),
    ],
)
def test_value_refused(value):
    """A value is one line of at most 998 bytes that no reader decodes into something else."""
    expected = ["/headers/X-Order"]
    assert expected == [fault.pointer for fault in check_headers({"X-Order": value})]


@pytest.mark.parametrize("value", ["<größe@shop.example>", "<" + "x" * 990 + ">"])
def test_structured_value_refused(value):
    """A value with a grammar must fit onto its line without being encoded."""
    expected = ["/headers/References"]
    assert expected == [fault.pointer for fault in check_headers({"References": value})]


def test_all_faults_at_once():
    """Every fault is reported with its pointer, and good fields with none."""
    faults = check_headers(
        {"X-Good": "a", "Bcc": "e@x.example", "X-a/b": "a", "X-Bad": "a\nb", "x-GOOD": "b"}
    )
    expected = ["/headers/Bcc", "/headers/X-a~1b", "/headers/X-Bad", "/headers/x-GOOD"]
    assert expected == [fault.pointer for fault in faults]
    assert Fault("/headers/X-Bad", "must not contain a line break (U+000A)") in faults


def test_kinds_of_names():
    """The composer asks which names are safe to write and which values it must leave as they are."""
    assert is_wellformed("X-TM-CLIENT-REF")
    assert not is_wellformed("X-A\r\n")
    assert is_structured("References")
    assert not is_structured("X-References")


@pytest.mark.parametrize(
    ("headers", "pointer"),
    [
        ({"List-Unsubscribe": "<https://shop.example/u?a=1&b=2>"}, None),
        ({"List-Unsubscribe": "<mailto:u@shop.example?subject=x>,<HTTPS://shop.example/u>"}, None),
        (
            {
                "List-Unsubscribe": "<https://shop.example/u>",
                "list-unsubscribe-post": "List-Unsubscribe=One-Click",
            },
            None,
        ),
        ({"List-Unsubscribe": "https://shop.example/u"}, "/headers/List-Unsubscribe"),
        ({"List-Unsubscribe": "<javascript:x>"}, "/headers/List-Unsubscribe"),
        ({"List-Unsubscribe": "<https://a.example/ x>"}, "/headers/List-Unsubscribe"),
        ({"List-Unsubscribe": "<https://a.example/>; <mailto:a@a.example>"}, "/headers/List-Unsubscribe"),
        ({"List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}, "/headers/List-Unsubscribe-Post"),
        (
            {
                "List-Unsubscribe": "<mailto:u@shop.example>",
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            },
            "/headers/List-Unsubscribe-Post",
        ),
        (
            {"List-Unsubscribe": "<https://a.example/>", "List-Unsubscribe-Post": "yes"},
            "/headers/List-Unsubscribe-Post",
        ),
    ],
)
def test_unsubscribing_is_held_to_its_rules(headers, pointer):
    """Mailbox providers act on these fields only where they are exactly right, so nothing else is taken."""
    assert ([pointer] if pointer else []) == [fault.pointer for fault in check_headers(headers)]
