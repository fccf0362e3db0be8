"""A message's record as read from the ledger: its state, its recipients' states, its timeline."""

from msgspec import Struct

from postroom.states import PRIORITIES, RECIPIENT_LETTERS, WAITING, State

KINDS = ("to", "cc", "bcc")
EVENTS_KEPT, EVENTS_FIRST = 32, 8  # as in the scripts' prelude


class Attempt(Struct, frozen=True, kw_only=True):
    """One finished attempt. `ms` is what it took."""

    at: int
    n: int
    channel: str
    outcome: str
    phase: str
    reply_code: int | None = None
    enhanced_code: str | None = None
    ms: int | None = None


class Happening(Struct, frozen=True):
    """One entry of the timeline; `at` in milliseconds since the epoch."""

    at: int
    type: str


class RecipientRecord(Struct, frozen=True):
    """One recipient's state, and the answer that ended or deferred it.

    `whose` is `message` where the answer was about its content or sender and not about the recipient;
    `doubtful`: it waits, and an earlier attempt may have reached it.
    """

    index: int
    kind: str
    state: State
    reply_code: int | None = None
    enhanced_code: str | None = None
    whose: str = "recipient"
    doubtful: bool = False


class Hold(Struct, frozen=True):
    """What holds up a single message: `storm` (the brake) or `paused` (a person).

    `since` and `till` are in ms since the epoch; `till` is 0 where somebody has to release it.
    """

    code: str
    since: int
    who: str = ""
    why: str = ""
    till: int = 0


class Record(Struct, frozen=True, kw_only=True):
    """A message's record. Times in milliseconds since the epoch, by Redis's clock."""

    id: str
    agent: str
    caller: str
    client_ref: str
    state: State
    priority: str
    accepted_at: int
    next_at: int | None
    deadline: int | None
    finished_at: int | None
    halted: int | None  # how long its agent had stood still at acceptance, where its clock stands with it
    reason: tuple[str, int] | None  # code and since, while it waits for another attempt
    hold: Hold | None
    ended_by: str | None  # `superseded` or `operator`, where that is what cancelled it, and not its caller
    template: tuple[str, str] | None  # name and version
    recipients: tuple[RecipientRecord, ...]
    attempts: tuple[Attempt, ...]
    timeline: tuple[Happening, ...]

    @property
    def attempted(self) -> int:
        """How many attempts have ended; the timeline of a long life does not keep them all."""
        return self.attempts[-1].n if self.attempts else 0

    @property
    def finished(self) -> bool:
        """True once nothing more will be tried by itself."""
        return self.state not in WAITING


def read_record(message_id: str, agent: str, fields: dict[bytes, bytes]) -> Record:
    """Build a record from the fields of its hash."""
    get = {key.decode(): value.decode() for key, value in fields.items()}
    accepted_at = int(get["a"])
    attempts, happenings = _read_events(get, accepted_at)
    finished_at = _int(get.get("fa"))
    state = State(get["s"])
    if finished_at is not None:
        happenings.append(Happening(finished_at, f"message.{state}"))
    reason = get["rs"].split("|") if "rs" in get else None
    return Record(
        id=message_id,
        agent=agent,
        caller=get["d"],
        client_ref=get["c"] + get.get("c2", ""),
        state=state,
        priority=PRIORITIES[get["p"]],
        accepted_at=accepted_at,
        next_at=_int(get.get("na")),
        deadline=_int(get.get("dl")),
        finished_at=finished_at,
        halted=_int(get.get("ck")),
        reason=(reason[0], int(reason[1])) if reason else None,
        hold=read_hold(get.get("hd"), get.get("hw", ""), get.get("hu", "")),
        ended_by=get.get("w"),
        template=_pair(get.get("t")),
        recipients=_read_recipients(get),
        attempts=tuple(attempts),
        timeline=(Happening(accepted_at, "message.accepted"), *happenings),
    )


def _pair(text: str | None) -> tuple[str, str] | None:
    if not text:
        return None
    name, _, version = text.partition("@")
    return name, version


def read_hold(text: str | None, why: str, till: str = "") -> Hold | None:
    """Read a hold as a record has it; None where there is none."""
    if not text:
        return None
    code, since, who = (*text.split("|", 2), "")[:3]
    return Hold(code, int(since), who, why, int(till or 0))


def _int(text: str | None) -> int | None:
    return int(float(text)) if text else None


def _read_recipients(get: dict[str, str]) -> tuple[RecipientRecord, ...]:
    kinds = [kind for kind, count in zip(KINDS, get["k"].split(","), strict=True) for _ in range(int(count))]
    out = []
    for index, (kind, letter) in enumerate(zip(kinds, get["rr"], strict=True)):
        code, enhanced, whose, *_ = (*get.get(f"x{index}", "").split("|"), "", "", "")
        out.append(
            RecipientRecord(
                index=index,
                kind=kind,
                state=RECIPIENT_LETTERS[letter],
                reply_code=_int(code),
                enhanced_code=enhanced or None,
                whose=whose or "recipient",
                doubtful=letter == "r",
            )
        )
    return tuple(out)


def _read_events(get: dict[str, str], accepted_at: int) -> tuple[list[Attempt], list[Happening]]:
    slots = [int(key[1:]) for key in get if key[0] == "e" and key[1:].isdigit()]
    attempts, happenings = [], []
    for slot in sorted(slots, key=lambda slot: _event_number(slot, int(get["en"]))):
        text = get[f"e{slot}"] + get.get(f"g{slot}", "")
        delta, kind, *rest = text.split("|")
        at = accepted_at + int(delta)
        if kind == "T":
            attempt = _read_attempt(at, rest)
            attempts.append(attempt)
            happenings.append(Happening(at, f"attempt.{attempt.outcome}"))
        else:
            happenings.append(Happening(at, f"message.{rest[0]}"))
    return attempts, happenings


def _event_number(slot: int, written: int) -> int:
    """Return which of the `written` events lies in a slot: the first ones stay, the rest go round."""
    if slot < EVENTS_FIRST:
        return slot
    ring = EVENTS_KEPT - EVENTS_FIRST
    return slot + (written - 1 - slot) // ring * ring


def _read_attempt(at: int, parts: list[str]) -> Attempt:
    n, channel, outcome, phase, code, enhanced, ms = (*parts, "", "", "", "", "", "", "")[:7]
    return Attempt(
        at=at,
        n=int(n),
        channel=channel,
        outcome=outcome,
        phase=phase,
        reply_code=_int(code),
        enhanced_code=enhanced or None,
        ms=_int(ms),
    )
