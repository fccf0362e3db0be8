"""What ZeptoMail's answers mean: every row of the table that is known of them, and what no table foresees."""

import json

import msgspec
import pytest

from postroom.message import Address, Content, Mail
from postroom.outcome import Ambiguous, Cause, ChannelFault, Deferred, Phase, Refused, Sent, Submission
from tests.fakezepto import error, success
from workers.channels.http_pool import parse_retry_after, read_clock
from workers.channels.seam import Order
from workers.channels.zeptomail_answer import classify
from workers.channels.zeptomail_said import read

CANARY = "canary-7f3a"  # in every text of a body: it must never show in an outcome
NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
ADA, CY, BOB = (Address(f"{name}@example.com") for name in ("ada", "cy", "bob"))
ONE = Mail(
    id="orders-01JD8X0000000000000000000",
    message_id="<01JD8X@shop.example>",
    date=NOW,
    sender=Address("orders@shop.example"),
    to=(ADA,),
    content=Content(subject="Your order", text="Hello"),
)
PLAIN = Order(mail=ONE, recipients=(0,))
THREE = Order(mail=msgspec.structs.replace(ONE, cc=(CY,), bcc=(BOB,)), recipients=(0, 1, 2))


def detail(status: int, group: str, code: str | None = None, **more):
    return status, error(group, code, remark=CANARY, **more)


def inner(code: str) -> dict[str, str]:
    return {"code": code, "message": CANARY}


MESSAGE, RECIPIENT = Refused(Phase.REQUEST, "message"), Refused(Phase.REQUEST, "recipient")
LATER, UNKNOWN, SENT = Deferred(Phase.REQUEST), Ambiguous(Phase.DONE), Sent("an-id")
HTML = f"<html>{CANARY}</html>"

ANSWERS = [
    # Accepted.
    (201, success("an-id"), SENT),
    (200, success("an-id"), SENT),
    (202, {"request_id": "an-id", "object": "email"}, SENT),
    (201, {"data": {"code": "EM_104"}}, Sent("")),
    (201, success("a\nforged id"), Sent("")),
    (
        201,
        {"data": [{"code": "fm_101"}], "object": "file", "file_cache_key": "a-key"},
        UNKNOWN,
    ),  # of a file only
    # Known codes, each under the status it was seen with.
    (*detail(400, "TM_3201", "GE_102", target="subject"), MESSAGE),
    (*detail(400, "TM_3301", "SM_101"), MESSAGE),
    (*detail(400, "TM_3301", "SM_120"), MESSAGE),
    (*detail(400, "TM_3301", "GE_121", target="headers"), MESSAGE),
    (*detail(400, "TM_3301"), MESSAGE),
    (*detail(422, "TM_3501", "UE_106"), MESSAGE),
    (*detail(422, "TM_3501", "MTR_101"), MESSAGE),
    (*detail(422, "TM_3501", "MTR_107"), MESSAGE),
    (*detail(422, "TM_3501", "LE_101"), Cause.QUOTA),
    (*detail(422, "TM_3501"), MESSAGE),
    (*detail(422, "TM_3501", "XX_999"), Cause.POLICY),
    (*detail(403, "TM_3601", "SERR_156"), Cause.POLICY),
    (*detail(403, "TM_3601", "SM_133"), Cause.QUOTA),
    (*detail(403, "TM_3601", "SMI_115"), Cause.QUOTA),
    (*detail(403, "TM_3601", "AE_101"), Cause.POLICY),
    (*detail(403, "TM_3601", "SM_151"), Cause.QUOTA),
    (*detail(401, "TM_4001", "SERR_157"), Cause.AUTH),
    (*detail(401, "TM_4001", "SM_111", target="from"), Cause.POLICY),
    (*detail(401, "TM_4001", "SM_145"), Cause.POLICY),
    (*detail(401, "TM_4001", "SM_147"), Cause.POLICY),
    (*detail(401, "TM_4001", "SM_128"), Cause.POLICY),
    (*detail(401, "TM_4001", "SM_113", target="to"), RECIPIENT),
    (*detail(401, "TM_4001", "SM_113", target="to|cc|bcc"), RECIPIENT),
    (*detail(401, "TM_4001", "SM_113", target=["to", "cc"]), RECIPIENT),
    (*detail(401, "TM_4001", "SM_113", target="to", inner_error=inner("SMI_116")), RECIPIENT),
    (*detail(401, "TM_4001", "SM_113", inner_error=inner("SMI_116")), RECIPIENT),
    (*detail(401, "TM_4001", "SM_113", target="to", inner_error=inner("SMI_115")), Cause.QUOTA),
    (*detail(401, "TM_4001", "SM_113", target="cc"), MESSAGE),  # there is no cc in the order
    (*detail(401, "TM_4001", "SM_113", target="to|reply_to"), MESSAGE),
    (*detail(401, "TM_4001", "SM_113", target="from"), MESSAGE),
    (*detail(401, "TM_4001", "SM_113", target="mime_headers"), MESSAGE),
    (*detail(401, "TM_4001", "SM_113", target=7), MESSAGE),
    (*detail(401, "TM_4001", "SM_113"), MESSAGE),
    (*detail(401, "TM_4001", "SM_113", target="bounce_address"), Cause.POLICY),
    (*detail(429, "TM_5001", "LE_102"), Cause.QUOTA),
    (*detail(429, "TM_5001"), Cause.QUOTA),
    (*detail(400, "TM_8001", "SM_127"), MESSAGE),
    (*detail(400, "TM_8001", "SM_129"), MESSAGE),
    (400, {"data": {"error_code": "TM_3004", "message": CANARY}, "message": "error"}, MESSAGE),
    (200, {"data": {"error_code": "TM_3004", "message": CANARY}, "message": "error"}, MESSAGE),
    (429, {"error": {"code": "LE_102"}}, Cause.QUOTA),
    (400, {"error": {"code": "TM_4001", "details": {"code": "SM_111"}}}, Cause.POLICY),
    # Unknown codes and none: held or tried again, never dropped.
    # The management calls' codes: never an answer to a send, so one says that something else is wrong.
    *(
        (400, {"error": {"code": code, "field": CANARY, "value": CANARY}, "status": "failure"}, Cause.POLICY)
        for code in ("MA_101", "MA_105", "MA_107", "DND_101", "DND_102")
    ),
    *(
        (400, {"error": {"code": code, "field": CANARY}, "status": "failure"}, MESSAGE)
        for code in ("GE_117", "GE_124")
    ),
    (*detail(400, "XX_1", "YY_2"), Cause.POLICY),
    (*detail(403, "TM_3601"), Cause.POLICY),
    (401, b"", Cause.AUTH),
    (404, HTML, Cause.POLICY),
    (302, HTML, Cause.POLICY),
    (408, HTML, LATER),
    (413, HTML, MESSAGE),
    (429, HTML, Cause.THROTTLE),
    (429, {"error": {"code": "TM_4290", "message": CANARY}}, Cause.THROTTLE),
    (*detail(500, "TM_9000", "XX_900"), LATER),
    (*detail(503, "TM_9000"), LATER),
    (500, {"error": {"code": "504", "message": CANARY}}, UNKNOWN),  # a proxy's, not the provider's
    (500, {"error": {"code": 504}}, UNKNOWN),
    (500, b"", UNKNOWN),
    (502, HTML, UNKNOWN),
    (503, HTML, UNKNOWN),
    (504, {"message": CANARY}, UNKNOWN),
    (201, b"", UNKNOWN),
    (200, HTML, UNKNOWN),
    (201, {}, UNKNOWN),
    (201, [CANARY], UNKNOWN),
    (201, {"error": {"code": "XX_1", "message": CANARY}}, UNKNOWN),
    (201, {"error": CANARY, "request_id": "an-id", "object": "email"}, UNKNOWN),
    # Nonsense.
    (400, b'{"error":{"code":"TM_4001","details":"' + CANARY.encode() + b'"}}', Cause.POLICY),
    (
        400,
        {"error": {"code": CANARY, "details": [CANARY, None, {"code": [CANARY]}, {"code": {}}]}},
        Cause.POLICY,
    ),
    (400, {"error": {"code": "X" * 17, "details": None}, "data": 3}, Cause.POLICY),
    (400, b"\xff\xfe\x00", Cause.POLICY),
    (201, b'{"data":"\xff"}', UNKNOWN),
    (201, b"[" * 100_000, UNKNOWN),
    (201, b'{"a":' * 100_000, UNKNOWN),
]


def raw(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def verdict(ended: Submission) -> object:
    return ended.cause if isinstance(ended, ChannelFault) else ended.answers[0].outcome


@pytest.mark.parametrize(("status", "body", "expected"), ANSWERS)
def test_every_answer_has_its_meaning(status, body, expected):
    """Codes decide before the status does, and nothing of the body but codes and the id comes out."""
    ended = classify(PLAIN, status, read(raw(body)))

    assert expected == verdict(ended)
    assert CANARY not in repr(ended)


@pytest.mark.parametrize(
    ("status", "group", "code", "text", "wait"),
    [
        (403, "TM_3601", "SERR_156", "egress IP", None),
        (401, "TM_4001", "SERR_157", "another region", None),
        (403, "TM_3601", "SMI_115", "daily limit", 3600.0),
        (403, "TM_3601", "SM_133", "trial", 3600.0),
        (429, "TM_5001", "LE_102", "credits", None),
        (418, "XX_1", "YY_2", "status 418, code YY_2", None),
    ],
)
def test_a_fault_says_what_a_person_can_do(status, group, code, text, wait):
    """A fault carries our text, the status, the most specific code and a wait where one makes sense."""
    fault = classify(PLAIN, status, read(raw(error(group, code))))

    assert text in fault.text
    assert (status, code, wait) == (fault.reply_code, fault.enhanced_code, fault.retry_after)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"target": "cc"}, (LATER, RECIPIENT, LATER)),
        ({"target": "to|bcc"}, (RECIPIENT, LATER, RECIPIENT)),
        ({"target": "to|cc|bcc"}, (RECIPIENT, RECIPIENT, RECIPIENT)),
        ({"target": "to|cc|bcc", "target_value": "BOB@example.com"}, (LATER, LATER, RECIPIENT)),
        ({"target": "cc", "target_value": "bob@example.com"}, (LATER, RECIPIENT, LATER)),
        *(
            ({"target": target, "target_value": value}, (LATER, RECIPIENT, LATER))
            for target in ("to|cc|bcc", "cc[0].email_address.address", "email_address", 7, None)
            for value in (
                *("<cy@example.com>", '"Cy" <CY@example.com>', "'cy@example.com'.", "mailto:cy@example.com"),
                *(["x@example.com", "cy@example.com"], {"email_address": {"address": "cy@example.com"}}),
                *([{"address": "cy@example.com", "name": CANARY}], {"cy@example.com": [None, 7, True]}),
            )
        ),
        ({"target_value": "cy@example.com,bob@example.com"}, (LATER, RECIPIENT, RECIPIENT)),
        ({"target_value": "cy@example.com|bob@example.com"}, (LATER, RECIPIENT, RECIPIENT)),
        ({"inner_error": {"code": "SMI_116", "target_value": "cy@example.com"}}, (LATER, RECIPIENT, LATER)),
        ({"target": "to|cc", "remark": "Invalid: cy@example.com."}, (LATER, RECIPIENT, LATER)),
        ({"target": "to|reply_to", "target_value": "ada@example.com"}, (RECIPIENT, LATER, LATER)),
        # Nobody of ours is named: the kinds decide, or the message is refused.
        ({"target": "to|cc", "target_value": "x-cy@example.com"}, (RECIPIENT, RECIPIENT, LATER)),
        ({"target": "to|cc", "target_value": "cy@example.com.au"}, (RECIPIENT, RECIPIENT, LATER)),
        ({"target": "to|cc", "target_value": {"a": [[["@", "cy@"]]]}}, (RECIPIENT, RECIPIENT, LATER)),
        ({"target_value": "x@example.com"}, (MESSAGE,) * 3),
        ({"target": "reply_to", "target_value": "cy@example.com"}, (MESSAGE,) * 3),
        ({"target": "from|mime_headers", "target_value": "cy@example.com"}, (MESSAGE,) * 3),
    ],
)
def test_only_the_recipients_an_answer_names_are_refused(more, expected):
    """A recipient's refusal touches its kind, or the one address it repeats; the rest is due again."""
    ended = classify(THREE, 401, read(raw(error("TM_4001", "SM_113", **more))))

    assert expected == tuple(answer.outcome for answer in ended.answers)
    assert {(401, "SM_113")} == {(answer.reply_code, answer.enhanced_code) for answer in ended.answers}


def test_an_address_that_only_ends_like_a_recipients_is_another():
    """Nothing is cut off from what stands before the `@`, however long it is."""
    longest = Address(f"{'c' * 64}@example.com")
    order = Order(mail=msgspec.structs.replace(ONE, cc=(longest,)), recipients=(0, 1))
    body = raw(error("TM_4001", "SM_113", target="to|cc", target_value=f"c{longest.address}"))
    ended = classify(order, 401, read(body))

    assert (RECIPIENT, RECIPIENT) == tuple(answer.outcome for answer in ended.answers)


@pytest.mark.parametrize(
    ("group", "code", "expected"), [("TM_4001", "SM_111", Cause.POLICY), ("TM_8001", "SM_129", MESSAGE)]
)
def test_an_address_decides_under_a_code_about_recipients_only(group, code, expected):
    """The channel's fault and the message's stay that, whatever the answer repeats."""
    body = error(group, code, target_value="cy@example.com", remark=CANARY)

    assert expected == verdict(classify(THREE, 400, read(raw(body))))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("7200", 7200.0),
        ("86401", 86400.0),
        ("99999999999999", 86400.0),
        ("Tue, 14 Nov 2023 22:15:20 GMT", 120.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("Fri, 14 Nov 2053 22:00:00 GMT", 86400.0),
        ("-5", None),
        ("1e9", None),
        ("\u0663", None),
        ("soon", None),
        ("9" * 400, 86400.0),
    ],
)
def test_retry_after_is_read_in_both_forms(value, expected):
    """Retry-After may be seconds or a date, is capped at a day, and nonsense in it is no wait."""
    assert expected == parse_retry_after(value, NOW)


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Tue, 14 Nov 2023 22:15:20 GMT", NOW + 120),
        (None, 7.0),
        ("", 7.0),
        (" ", 7.0),
        ("now", 7.0),
        ("Tue, 99 Nov 2023 22:15:20 GMT", 7.0),
        ("Tue, 14 Nov 99999999999999999999 22:15:20 GMT", 7.0),
        (", ,", 7.0),
        ("\u0663", 7.0),
    ],
)
def test_the_clock_of_the_answer_is_read(date, expected):
    """The provider's `Date` is its clock; where it says nothing, there is the local one."""
    assert expected == read_clock(date, 7.0)
