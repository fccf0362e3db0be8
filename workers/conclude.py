"""What is written of an attempt that is over, and what is told of it: answers in, the ledger's letters out."""

import random
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from postroom.ledger.claimed import Claimed
from postroom.ledger.finished import Finish
from postroom.outcome import (
    Ambiguous,
    Answer,
    Deferred,
    Phase,
    RecipientOutcome,
    Refused,
    Sent,
    Submitted,
)
from workers.retry import next_delay

LETTERS: dict[type[RecipientOutcome], str] = {Sent: "s", Refused: "f", Deferred: "d", Ambiguous: "a"}
WORDS: dict[str, str] = {"s": "sent", "f": "refused", "d": "deferred", "a": "ambiguous"}
CLOSING, THROTTLED = 421, 454  # of SMTP
WORST_FIRST = "adfs"  # the word an attempt is known by is that of its worst recipient, for whoever watches


class Ended(Struct, frozen=True):
    """A finished attempt: what to write, and what to tell logs and metrics."""

    finish: Finish
    outcome: str
    phase: str
    reply_code: int | None
    enhanced_code: str | None
    ms: int
    provider_id: str
    ambiguous: bool
    defect: str | None = None
    retry_after: float | None = None
    answered: bool = False  # by the other side; what it was never shown says nothing about it
    throttle: Answer | None = None  # what asks us to slow down, of one recipient among others it may be

    @property
    def went_silent(self) -> bool:
        """True where the other side had the mail before it, in part or in whole, and answered nothing about it."""
        asked = self.defect is None and self.phase != Phase.RENDER
        return asked and not self.answered and self.outcome in ("deferred", "ambiguous")


def conclude(claimed: Claimed, channel: str, submitted: Submitted, ms: int) -> Ended:
    answers = submitted.answers
    if len(answers) == 1 and isinstance(sent := answers[0].outcome, Sent):
        return _conclude_sent(claimed, channel, answers[0], sent, ms)
    letters = [LETTERS[type(answer.outcome)] for answer in answers]
    worst = min(letters, key=WORST_FIRST.index)
    shown = answers[letters.index(worst)]
    retry_after = _retry_after(answers)
    delay = next_delay(
        claimed.retry_profile,
        claimed.attempts + 1,
        draw=random.random(),  # noqa: S311  jitter needs no secrecy
        retry_after=retry_after,
    )
    answered = any(answer.reply_code is not None for answer in answers)
    phase = _phase(shown.outcome)
    replies = tuple(
        (index, _reply(answer))
        for index, answer in zip(claimed.waiting, answers, strict=True)
        if isinstance(answer.outcome, Refused | Deferred)
    )
    return Ended(
        finish=Finish(
            id=claimed.id,
            fence=claimed.fence,
            codes=spread(claimed, letters),
            delay_ms=round(delay * 1000),
            event=_event(channel, worst, phase, shown, ms),
            replies=replies,
            channel=channel if answered else "",
        ),
        outcome=WORDS[worst],
        phase=str(phase),
        reply_code=shown.reply_code,
        enhanced_code=shown.enhanced_code,
        ms=ms,
        provider_id=next((a.outcome.provider_id for a in answers if isinstance(a.outcome, Sent)), ""),
        ambiguous="a" in letters,
        retry_after=retry_after,
        answered=answered,
        throttle=next(filter(_asks_to_slow_down, answers), None),
    )


def _conclude_sent(claimed: Claimed, channel: str, answer: Answer, sent: Sent, ms: int) -> Ended:
    """Conclude what nearly all attempts are: one recipient, taken. There is nothing to weigh, or to try again."""
    answered = answer.reply_code is not None
    return Ended(
        finish=Finish(
            id=claimed.id,
            fence=claimed.fence,
            codes=spread(claimed, "s"),
            delay_ms=0,
            event=_event(channel, "s", Phase.DONE, answer, ms),
            channel=channel if answered else "",
        ),
        outcome="sent",
        phase=str(Phase.DONE),
        reply_code=answer.reply_code,
        enhanced_code=answer.enhanced_code,
        ms=ms,
        provider_id=sent.provider_id,
        ambiguous=False,
        answered=answered,
    )


def unsendable(claimed: Claimed, channel: str, defect: str, ms: int) -> Ended:
    """End a message that cannot be made into mail: trying again would change nothing, and it is our fault."""
    answer = Answer(Refused(Phase.RENDER, whose="message"))
    finish = Finish(
        id=claimed.id,
        fence=claimed.fence,
        codes=spread(claimed, "f" * len(claimed.waiting)),
        delay_ms=0,
        event=_event(channel, "f", Phase.RENDER, answer, ms),
        replies=tuple((index, "||postroom") for index in claimed.waiting),
    )
    return Ended(finish, "refused", str(Phase.RENDER), None, None, ms, "", ambiguous=False, defect=defect)


def crashed(claimed: Claimed, channel: str, defect: str, ms: int, *, marked: bool) -> Ended:
    """End an attempt that a defect of ours broke off: past its mark it is ambiguous, else it is tried again."""
    outcome = Ambiguous(Phase.DONE) if marked else Deferred(Phase.RENDER)
    submitted = Submitted((Answer(outcome),) * len(claimed.waiting))
    return msgspec.structs.replace(conclude(claimed, channel, submitted, ms), defect=defect)


def _reply(answer: Answer) -> str:
    """Return a recipient's answer in short: codes, and whose fault it is where it is not the recipient's own."""
    outcome = answer.outcome
    about_message = (
        outcome.whose == "message" if isinstance(outcome, Refused) else _phase(outcome) != Phase.RCPT
    )
    whose = "message" if about_message else ""
    return f"{answer.reply_code or ''}|{answer.enhanced_code or ''}|{whose}".rstrip("|")


def _asks_to_slow_down(answer: Answer) -> bool:
    """True for a deferral by 421, 4.7.x or Retry-After, or by 454 where no enhanced code says what it is about."""
    outcome, code, enhanced = answer.outcome, answer.reply_code, answer.enhanced_code or ""
    if not isinstance(outcome, Deferred):
        return False
    said = outcome.retry_after is not None or code == CLOSING
    return said or enhanced.startswith("4.7.") or (code == THROTTLED and not enhanced)


def _phase(outcome: RecipientOutcome) -> Phase:
    return Phase.DONE if isinstance(outcome, Sent) else outcome.phase


def _event(channel: str, letter: str, phase: Phase, answer: Answer, ms: int) -> str:
    """Return the timeline's short form of an attempt, but for its number, which the ledger knows."""
    code, enhanced = answer.reply_code or "", answer.enhanced_code or ""
    return f"{channel}|{WORDS[letter]}|{phase}|{code}|{enhanced}|{ms}"


def _retry_after(answers: tuple[Answer, ...]) -> float | None:
    asked = [
        a.outcome.retry_after for a in answers if isinstance(a.outcome, Deferred) and a.outcome.retry_after
    ]
    return max(asked, default=None)


def spread(claimed: Claimed, letters: Sequence[str]) -> str:
    """Put the letters of this attempt's recipients at their places among all recipients of the message."""
    if len(letters) == claimed.recipients:  # then `waiting` are all of them, in their order
        return "".join(letters)
    out = ["-"] * claimed.recipients
    for index, letter in zip(claimed.waiting, letters, strict=True):
        out[index] = letter
    return "".join(out)
