"""Why a message is where it is: what is said first, what it is called, and until when."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from postroom.config.structs import Agent, SmtpChannel
from postroom.config.structs import From as Sender
from postroom.due import next_attempt
from postroom.explain import explain, moment, state_sentence
from postroom.ledger.reading import StoredMessage
from postroom.ledger.record import Attempt, Happening, Hold, RecipientRecord, Record
from postroom.ledger.standing import Pause, Standing, StoredFault
from postroom.states import State

NOW = round(datetime(2026, 6, 1, 12, 0, tzinfo=UTC).timestamp() * 1000)
MINUTE, HOUR = 60_000, 3_600_000
MIDNIGHT = NOW - 12 * HOUR
ID = "orders-01JD8X0000000000000000000"
CHANNELS = tuple(SmtpChannel(name=n, host="h", port=25, tls="none") for n in ("first", "second"))
AGENT = Agent(sender=Sender(address="orders@shop.example"), channels=CHANNELS, owner="team-shop")
FAULT = StoredFault(NOW + 2 * MINUTE, NOW - HOUR, 3, "auth", "535", "", "the server refuses the credentials")
LATER_FAULT = msgspec.structs.replace(FAULT, till=NOW + 9 * MINUTE, cause="connect")
FAULTS = {"first": LATER_FAULT, "second": FAULT}
PAUSE = Pause(NOW - MINUTE, NOW + HOUR, "grace", "provider incident")
STORM = Hold("storm", NOW - 2 * MINUTE)
HELD = Hold("paused", NOW - 2 * MINUTE, "grace", "wrong prices.")
HELD_FOR = Hold("paused", NOW - 2 * MINUTE, "grace", "wrong prices.", NOW + MINUTE)
HELD_UNTIL_NOW = Hold("paused", NOW - 2 * MINUTE, "grace", "wrong prices.", NOW)


def recipients(*states: State, **fields: Any) -> tuple[RecipientRecord, ...]:
    return tuple(RecipientRecord(index=i, kind="to", state=s, **fields) for i, s in enumerate(states))


def stored(**changes: Any) -> StoredMessage:
    """Return a message that is due, but for the changes to its record, its agent's standing, or itself."""
    around = {name: changes.pop(name) for name in ("day", "arrival_us", "lanes", "width") if name in changes}
    standing = {name: changes.pop(name) for name in ("pause", "faults") if name in changes}
    record = {
        "id": ID,
        "agent": "orders",
        "caller": "checkout",
        "client_ref": "r",
        "state": State.QUEUED,
        "priority": "normal",
        "accepted_at": NOW - HOUR,
        "next_at": NOW - HOUR,
        "deadline": NOW + 48 * HOUR,
        "finished_at": None,
        "halted": None,
        "reason": None,
        "hold": None,
        "ended_by": None,
        "template": None,
        "recipients": recipients(State.QUEUED),
        "attempts": (),
        "timeline": (),
    }
    return StoredMessage(Record(**record | changes), None, Standing(now=NOW, **standing), **around)


def agent(**changes: Any) -> Agent:
    return msgspec.structs.replace(AGENT, **changes)


RETRYING = {"next_at": NOW + MINUTE, "reason": ("retrying", NOW - MINUTE)}
TRIED_OUT = {**RETRYING, "deadline": NOW + MINUTE}
AMBIGUOUS = {"next_at": NOW + MINUTE, "reason": ("ambiguous", NOW - MINUTE)}
OWN_CHANNEL = {"next_at": NOW + MINUTE, "reason": ("own_channel", NOW - MINUTE)}
USED_UP = {"day": (MIDNIGHT, 10)}
PACED = {"arrival_us": (NOW + 5_000) * 1000}
LIMITED = agent(per_day=10, rate="1/s")


@pytest.mark.parametrize(
    ("changes", "configured", "code", "since", "until", "rule", "next_at"),
    [
        ({}, AGENT, "due", NOW - HOUR, None, None, NOW - HOUR),
        ({}, None, "agent_unknown", None, None, "/agents/orders", None),
        ({"hold": STORM}, AGENT, "storm", STORM.since, None, "/agents/orders/storm", None),
        ({"hold": HELD}, AGENT, "held", HELD.since, None, None, None),
        ({"hold": HELD_FOR}, AGENT, "held", HELD.since, HELD_FOR.till, None, HELD_FOR.till),
        ({"hold": HELD_UNTIL_NOW}, AGENT, "due", NOW - HOUR, None, None, NOW),
        ({"pause": PAUSE}, AGENT, "paused", PAUSE.since, PAUSE.till, None, PAUSE.till),
        ({"pause": Pause(1, 0, "x", "")}, AGENT, "paused", 1, None, None, None),
        ({"pause": Pause(1, NOW - 1, "x", "")}, AGENT, "due", NOW - HOUR, None, None, NOW - HOUR),
        ({"faults": FAULTS}, AGENT, "channel_connect", FAULT.since, FAULT.till, "/agents/orders/channels/0", FAULT.till),
        ({"faults": {"second": FAULT}}, AGENT, "due", NOW - HOUR, None, None, NOW - HOUR),
        (
            {"faults": dict.fromkeys(FAULTS, msgspec.structs.replace(FAULT, till=NOW - 1))},
            AGENT, "channel_auth", FAULT.since, None, "/agents/orders/channels/0", NOW - 1,
        ),
        ({"next_at": NOW + MINUTE}, AGENT, "scheduled", NOW - HOUR, NOW + MINUTE, "/send_at", NOW + MINUTE),
        (RETRYING, AGENT, "retrying", NOW - MINUTE, NOW + MINUTE, None, NOW + MINUTE),
        (TRIED_OUT, AGENT, "retrying", NOW - MINUTE, NOW + MINUTE, None, None),
        (AMBIGUOUS, AGENT, "ambiguous", NOW - MINUTE, NOW + MINUTE, None, NOW + MINUTE),
        (OWN_CHANNEL, AGENT, "own_channel", NOW - MINUTE, NOW + MINUTE, None, NOW + MINUTE),
        ({**RETRYING, "next_at": NOW - 1}, AGENT, "due", NOW - 1, None, None, NOW - 1),
        (USED_UP, LIMITED, "per_day", NOW - HOUR, MIDNIGHT + 24 * HOUR, "/agents/orders/per_day", MIDNIGHT + 24 * HOUR),
        ({"day": (MIDNIGHT, 9)}, LIMITED, "due", NOW - HOUR, None, None, NOW - HOUR),
        ({"day": (MIDNIGHT - 24 * HOUR, 10)}, LIMITED, "due", NOW - HOUR, None, None, NOW - HOUR),
        (
            {"day": (MIDNIGHT - 2 * HOUR, 10)}, agent(per_day=10, timezone="Europe/Vienna"),
            "per_day", NOW - HOUR, MIDNIGHT + 22 * HOUR, "/agents/orders/per_day", MIDNIGHT + 22 * HOUR,
        ),
        (PACED, LIMITED, "pacing", NOW - HOUR, NOW + 5_000, "/agents/orders/rate", NOW + 5_000),
        (PACED, AGENT, "due", NOW - HOUR, None, None, NOW - HOUR),
        ({"lanes": 4}, agent(connections=4), "connections", NOW - HOUR, None, "/agents/orders/connections", NOW - HOUR),
        ({"lanes": 3}, agent(connections=4), "due", NOW - HOUR, None, None, NOW - HOUR),
        (
            {"lanes": 2, "width": 2}, agent(connections=4),
            "connections", NOW - HOUR, None, "/agents/orders/connections", NOW - HOUR,
        ),
        ({"lanes": 4, "next_at": NOW - 9}, agent(connections=4), "due", NOW - 9, None, None, NOW - 9),
    ],
)  # fmt: skip
def test_what_a_message_waits_for(changes, configured, code, *, since, until, rule, next_at):
    """Each cause has its code, says since when and until when, and by which rule."""
    message = stored(**changes)
    reason = explain(message, configured)
    found = (reason.code, reason.since, reason.until, reason.rule)
    assert (code, moment(since), moment(until), rule) == found
    assert next_at == next_attempt(message, configured)
    assert (configured.owner if configured else None) == reason.owner
    assert state_sentence(message, configured).endswith(f"({code}): {reason.text}")


TOMORROW = {"next_at": NOW + 24 * HOUR}
CONNECT = {"first": LATER_FAULT, "second": LATER_FAULT}
LATE_RETRY = {**TOMORROW, "reason": ("retrying", NOW - MINUTE)}


@pytest.mark.parametrize(
    ("changes", "code", "next_at"),
    [
        ({"pause": PAUSE, **TOMORROW}, "scheduled", NOW + 24 * HOUR),
        ({"pause": Pause(1, 0, "grace", "x"), **TOMORROW}, "paused", None),
        ({"pause": Pause(1, NOW + 24 * HOUR, "grace", "x"), **TOMORROW}, "paused", NOW + 24 * HOUR),
        ({"pause": PAUSE, "next_at": NOW + MINUTE}, "paused", PAUSE.till),
        ({"pause": PAUSE, **LATE_RETRY}, "paused", NOW + 24 * HOUR),
        ({"faults": CONNECT, **TOMORROW}, "scheduled", NOW + 24 * HOUR),
        ({"faults": CONNECT, "next_at": NOW + MINUTE}, "channel_connect", LATER_FAULT.till),
        ({"faults": CONNECT, **LATE_RETRY}, "channel_connect", NOW + 24 * HOUR),
        ({"faults": FAULTS, **TOMORROW}, "scheduled", NOW + 24 * HOUR),
        ({"faults": dict.fromkeys(FAULTS, FAULT), **TOMORROW}, "channel_auth", NOW + 24 * HOUR),
        ({"pause": PAUSE, "faults": dict.fromkeys(FAULTS, FAULT), **TOMORROW}, "channel_auth", NOW + 24 * HOUR),
        ({"pause": PAUSE, "faults": CONNECT, **TOMORROW}, "scheduled", NOW + 24 * HOUR),
        (
            {"faults": dict.fromkeys(FAULTS, msgspec.structs.replace(LATER_FAULT, till=NOW - 1)), **TOMORROW},
            "scheduled", NOW + 24 * HOUR,
        ),
        (
            {"faults": dict.fromkeys(FAULTS, msgspec.structs.replace(LATER_FAULT, till=NOW - MINUTE)), "next_at": NOW - 1},
            "channel_connect", NOW - 1,
        ),
        ({"hold": HELD, **TOMORROW}, "held", None),
        ({"hold": HELD_FOR, **TOMORROW}, "scheduled", NOW + 24 * HOUR),
    ],
)  # fmt: skip
def test_what_ends_before_the_message_is_wanted_is_not_why_it_waits(changes, code, next_at):
    """Mail for tomorrow is scheduled, whatever passes by itself until then; what a person must end comes first."""
    message = stored(**changes)
    assert (code, next_at) == (explain(message, AGENT).code, next_attempt(message, AGENT))


@pytest.mark.parametrize("cause", ["auth", "quota", "policy"])
def test_what_a_person_must_mend_has_no_known_end(cause):
    """Scheduled mail behind it is told of it early, while there is time to mend it."""
    fault = msgspec.structs.replace(FAULT, cause=cause)
    message = stored(faults=dict.fromkeys(FAULTS, fault), **TOMORROW)
    assert f"channel_{cause}" == explain(message, AGENT).code


ALL = [
    ("agent_unknown", {}),
    ("storm", {"hold": STORM}),
    ("paused", {"pause": PAUSE}),
    ("channel_connect", {"faults": FAULTS}),
    ("retrying", RETRYING),
    ("per_day", USED_UP),
    ("pacing", PACED),
    ("connections", {"lanes": 100}),
    ("due", {}),
]


@pytest.mark.parametrize("first", range(len(ALL)))
def test_the_most_lasting_cause_is_told_first(first):
    """Of all that holds a message up, what lasts longest without anybody's help is what is told."""
    changes = {name: value for _, causes in ALL[first:] for name, value in causes.items()}
    reason = explain(stored(**changes), None if first == 0 else LIMITED)
    assert ALL[first][0] == reason.code


def test_the_next_attempt_waits_for_everything():
    """It comes after the last of what holds the message up, whatever is told as the reason."""
    message = stored(**RETRYING, **USED_UP, **PACED, pause=PAUSE, faults=FAULTS)
    assert MIDNIGHT + 24 * HOUR == next_attempt(message, LIMITED)
    assert PAUSE.till == next_attempt(message, AGENT)


@pytest.mark.parametrize(
    ("changes", "code", "fault"),
    [
        ({"state": State.SENT}, None, None),
        ({"state": State.FAILED, "recipients": recipients(State.FAILED)}, "refused", "recipient"),
        ({"state": State.FAILED, "recipients": recipients(State.FAILED, whose="message")}, "refused", "message"),
        ({"state": State.EXPIRED}, "expired", None),
        ({"state": State.UNCONFIRMED}, "ambiguous", "agent"),
        ({"state": State.CANCELLED}, "cancelled", None),
        ({"state": State.CANCELLED, "ended_by": "operator"}, "cancelled", None),
        ({"state": State.CANCELLED, "ended_by": "superseded"}, "superseded", None),
        ({"state": State.PARTLY_SENT, "recipients": recipients(State.SENT, State.FAILED)}, "refused", "recipient"),
        ({"state": State.PARTLY_SENT, "recipients": recipients(State.SENT, State.EXPIRED)}, "expired", None),
        ({"state": State.PARTLY_SENT, "recipients": recipients(State.SENT, State.CANCELLED)}, "cancelled", None),
        (
            {
                "state": State.PARTLY_SENT,
                "recipients": recipients(State.SENT, State.CANCELLED),
                "timeline": (Happening(NOW, "message.superseded"),),
            },
            "superseded", None,
        ),
    ],
)  # fmt: skip
def test_what_ended_a_message(changes, code, fault):
    """An end has its reason, whatever stands over the agent by now."""
    message = stored(finished_at=NOW, next_at=None, pause=PAUSE, **changes)
    reason = explain(message, AGENT)
    assert (code, fault) == ((reason.code, reason.fault) if reason else (None, None))
    assert next_attempt(message, AGENT) is None
    assert state_sentence(message, AGENT).startswith(f"{ID} is {message.record.state} since {moment(NOW)}")


@pytest.mark.parametrize(
    ("changes", "owner", "text"),
    [
        ({"pause": PAUSE}, "team-shop", "Its agent is paused until 2026-06-01T13:00:00.000Z: provider incident. Ask team-shop."),
        ({"pause": Pause(1, 0, "grace", " ")}, "", "Its agent is paused."),
        ({"hold": HELD}, "team-shop", "An operator holds it: wrong prices. Ask team-shop."),
        ({"hold": HELD_FOR}, "", "An operator holds it until 2026-06-01T12:01:00.000Z: wrong prices."),
        (RETRYING | {"attempts": (Attempt(at=1, n=41, channel="c", outcome="deferred", phase="rcpt"),)}, "",
         "Waiting for attempt 42 at 2026-06-01T12:01:00.000Z."),
        (TRIED_OUT, "", "Its last attempt is over; another one would come too late. Its time is up at 2026-06-01T12:01:00.000Z."),
        (TRIED_OUT | AMBIGUOUS, "",
         "The last attempt may have been taken; another one would come too late. Its time is up at 2026-06-01T12:01:00.000Z."),
    ],
)  # fmt: skip
def test_the_words(changes, owner, text):
    """The text says until when, why and whom to ask, as far as that is known, and never who did it."""
    assert text == explain(stored(**changes), agent(owner=owner)).text


def test_a_message_under_way_says_so():
    """While an attempt is under way there is no reason to wait."""
    message = stored(state=State.SENDING)
    assert explain(message, AGENT) is None
    assert f"{ID} is sending: an attempt is under way." == state_sentence(message, AGENT)
