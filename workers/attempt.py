"""One attempt of one message: render → compose → submit, then what to write of it.

The straight path. Submitting returns a value; what is raised here means that nothing was sent and somebody
else decides: the fence is lost, the ledger is away, or the mail cannot be made.
"""

import random
import time
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from postroom.compose import ComposeError
from postroom.failpoint import reach
from postroom.ledger.delivery import Claimed, Delivery, Finish, Pace
from postroom.ledger.errors import LedgerError
from postroom.ledger.files import FileContents
from postroom.ledger.reading import Reading
from postroom.library import Library, UnknownTemplateError
from postroom.message import Attachment, AttachmentRef, Content, Mail, Payload
from postroom.outcome import (
    Ambiguous,
    Answer,
    ChannelFault,
    DayUsedUpError,
    Deferred,
    FenceLostError,
    Phase,
    RecipientOutcome,
    Refused,
    Sent,
    Submitted,
    TooLateError,
)
from postroom.templates import RenderError
from workers.channels.seam import Order, Way
from workers.retry import next_delay
from workers.stages import Stages

LETTERS: dict[type[RecipientOutcome], str] = {Sent: "s", Refused: "f", Deferred: "d", Ambiguous: "a"}
WORDS: dict[str, str] = {"s": "sent", "f": "refused", "d": "deferred", "a": "ambiguous"}
REFUSED_MARKS: dict[int, type[Exception]] = {-1: TooLateError, -2: DayUsedUpError}  # by the ledger's answer
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


class Attempt:
    """Makes attempts over one agent's channel."""

    def __init__(
        self,
        delivery: Delivery,
        reading: Reading,
        library: Library,
        files: FileContents,
        log: FilteringBoundLogger,
    ) -> None:
        self._log = log
        self._delivery = delivery
        self._reading = reading
        self._library = library
        self._files = files

    async def __call__(
        self, claimed: Claimed, way: Way, bounce_address: str | None, pace: Pace, stages: Stages
    ) -> Ended | ChannelFault:
        """Make one attempt; return how it ended, or the channel's fault, which leaves the message untouched.

        Raises:
            FenceLostError: somebody else owns the message; nothing was sent.
            TooLateError: its time is up; nothing was sent.
            DayUsedUpError: the agent's `per_day` leaves no room for it; nothing was sent.
            LedgerError: a mark or a template could not be written or read; nothing was sent.
        """
        reach("claimed")
        started = time.perf_counter()
        channel = way.channel
        mark = _Mark(self._delivery, claimed, channel, pace)
        try:
            mail = await self._make_mail(claimed)
            rendered = time.perf_counter()
            stages.render = rendered - started
            order = Order(mail, claimed.waiting, bounce_address, stages)
            submission = await way.connection.submit(order, mark)
            stages.submit = time.perf_counter() - rendered - stages.compose
        except (RenderError, ComposeError, UnknownTemplateError, _UnreadableError) as error:
            return _unsendable(claimed, channel, type(error).__name__, _ms_since(started))
        except (FenceLostError, TooLateError, DayUsedUpError, LedgerError):
            raise
        except Exception as error:  # noqa: BLE001  a defect of ours: told, and bounded by the profile
            self._log.exception("attempt.crashed", message_id=claimed.id, agent=claimed.agent)
            return _crashed(claimed, channel, mark, type(error).__name__, _ms_since(started))
        if isinstance(submission, ChannelFault):
            return submission
        return _conclude(claimed, channel, submission, _ms_since(started))

    async def _make_mail(self, claimed: Claimed) -> Mail:
        payload = claimed.payload
        if payload is None:
            raise _UnreadableError
        content = await self._render(payload)
        blobs = await self._attachments(claimed, payload)
        return Mail(
            id=claimed.id,
            message_id=payload.message_id,
            date=claimed.accepted_at / 1000,
            sender=payload.sender,
            submitter=payload.submitter,
            to=payload.to,
            cc=payload.cc,
            bcc=payload.bcc,
            reply_to=payload.reply_to,
            content=content,
            headers=tuple(payload.headers.items()),
            attachments=blobs,
            track_opens=payload.track_opens,
            track_clicks=payload.track_clicks,
        )

    async def _render(self, payload: Payload) -> Content:
        use = payload.template
        if use is None:
            assert payload.content is not None
            return payload.content
        template = await self._library.get(use.name, use.version)
        return template.render(use.variables, use.locale)

    async def _attachments(self, claimed: Claimed, payload: Payload) -> tuple[Attachment, ...]:
        if not payload.attachments:
            return ()
        own = sum(not (ref.file or ref.provider_key) for ref in payload.attachments)
        blobs = iter(await self._reading.blobs(claimed.id, own))
        return tuple([await self._attachment(ref, blobs) for ref in payload.attachments])

    async def _attachment(self, ref: AttachmentRef, blobs: Iterator[bytes | None]) -> Attachment:
        if ref.provider_key:
            return Attachment(ref.name, ref.content_type, b"", ref.cid, provider_key=ref.provider_key)
        found = await self._files.lines(ref.file) if ref.file else next(blobs)
        if found is None:
            raise _UnreadableError
        if ref.file:
            return Attachment(ref.name, ref.content_type, b"", ref.cid, file=ref.file, encoded=found)
        return Attachment(ref.name, ref.content_type, found, ref.cid)


class _UnreadableError(Exception):
    """What was stored of the message cannot be read any more."""


class _Mark:
    """The commit mark of one attempt (`postroom.outcome.Commit`)."""

    def __init__(self, delivery: Delivery, claimed: Claimed, channel: str, pace: Pace) -> None:
        self._pace = pace
        self._delivery = delivery
        self._claimed = claimed
        self._channel = channel
        self.written = False

    async def __call__(self, known: tuple[Answer | None, ...]) -> None:
        letters = ["a" if answer is None else LETTERS[type(answer.outcome)] for answer in known]
        codes = _spread(self._claimed, letters)
        claimed = self._claimed
        mark = await self._delivery.advance(claimed.id, claimed.fence, codes, self._channel, self._pace)
        if mark != 1:
            raise REFUSED_MARKS.get(mark, FenceLostError)
        self.written = True


def _spread(claimed: Claimed, letters: Sequence[str]) -> str:
    """Put the letters of this attempt's recipients at their places among all recipients of the message."""
    if len(letters) == claimed.recipients:  # then `waiting` are all of them, in their order
        return "".join(letters)
    out = ["-"] * claimed.recipients
    for index, letter in zip(claimed.waiting, letters, strict=True):
        out[index] = letter
    return "".join(out)


def _conclude(claimed: Claimed, channel: str, submitted: Submitted, ms: int) -> Ended:
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
            codes=_spread(claimed, letters),
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
            codes=_spread(claimed, "s"),
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


def _unsendable(claimed: Claimed, channel: str, defect: str, ms: int) -> Ended:
    """End a message that cannot be made into mail: trying again would change nothing, and it is our fault."""
    answer = Answer(Refused(Phase.RENDER, whose="message"))
    finish = Finish(
        id=claimed.id,
        fence=claimed.fence,
        codes=_spread(claimed, "f" * len(claimed.waiting)),
        delay_ms=0,
        event=_event(channel, "f", Phase.RENDER, answer, ms),
        replies=tuple((index, "||postroom") for index in claimed.waiting),
    )
    return Ended(finish, "refused", str(Phase.RENDER), None, None, ms, "", ambiguous=False, defect=defect)


def _crashed(claimed: Claimed, channel: str, mark: _Mark, defect: str, ms: int) -> Ended:
    """End an attempt that a defect of ours broke off: past its mark it is ambiguous, else it is tried again."""
    outcome = Ambiguous(Phase.DONE) if mark.written else Deferred(Phase.RENDER)
    submitted = Submitted((Answer(outcome),) * len(claimed.waiting))
    return msgspec.structs.replace(_conclude(claimed, channel, submitted, ms), defect=defect)


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


def _ms_since(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)
