"""One attempt of one message: render → compose → submit, then what to write of it.

The straight path. Submitting returns a value; what is raised here means that nothing was sent and somebody
else decides: the fence is lost, the ledger is away, or the mail cannot be made.
"""

import time
from collections.abc import Iterator

from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from postroom.compose import ComposeError
from postroom.failpoint import reach
from postroom.ledger.claimed import Claimed
from postroom.ledger.delivery import Delivery
from postroom.ledger.errors import LedgerError
from postroom.ledger.files import FileContents
from postroom.ledger.limits import Pace
from postroom.ledger.reading import Reading
from postroom.library import Library, UnknownTemplateError
from postroom.message import Attachment, AttachmentRef, Content, Mail, Payload
from postroom.outcome import (
    Answer,
    ChannelFault,
    DayUsedUpError,
    FenceLostError,
    TooLateError,
)
from postroom.templates import RenderError
from workers.channels.seam import Ahead, Order, Way
from workers.conclude import LETTERS, Ended, conclude, crashed, spread, unsendable
from workers.stages import Stages

REFUSED_MARKS: dict[int, type[Exception]] = {-1: TooLateError, -2: DayUsedUpError}  # by the ledger's answer


class InHand(Struct):
    """A message in a lane's hands: where its time goes, and its order once that is made."""

    message: Claimed
    stages: Stages
    order: Order | None = None


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
        self, in_hand: InHand, way: Way, bounce_address: str | None, pace: Pace, ahead: Ahead | None = None
    ) -> Ended | ChannelFault:
        """Make one attempt; return how it ended, or the channel's fault, which leaves the message untouched.

        `ahead` is for the connection: what the lane will send next over it.

        Raises:
            FenceLostError: somebody else owns the message; nothing was sent.
            TooLateError: its time is up; nothing was sent.
            DayUsedUpError: the agent's `per_day` leaves no room for it; nothing was sent.
            LedgerError: a mark or a template could not be written or read; nothing was sent.
        """
        reach("claimed")
        started = time.perf_counter()
        claimed, stages, channel = in_hand.message, in_hand.stages, way.channel
        mark = _Mark(self._delivery, claimed, channel, pace)
        try:
            order = in_hand.order or await self._make_order(in_hand, bounce_address)
            made, composed = time.perf_counter(), stages.compose
            submission = await way.connection.submit(order, mark, ahead)
            composed = stages.compose - composed  # nothing of it where it was composed ahead
            stages.submit = time.perf_counter() - made - composed - stages.ahead
        except (RenderError, ComposeError, UnknownTemplateError, _UnreadableError) as error:
            return unsendable(claimed, channel, type(error).__name__, _ms_since(started))
        except (FenceLostError, TooLateError, DayUsedUpError, LedgerError):
            raise
        except Exception as error:  # noqa: BLE001  a defect of ours: told, and bounded by the profile
            self._log.exception("attempt.crashed", message_id=claimed.id, agent=claimed.agent)
            return crashed(claimed, channel, type(error).__name__, _ms_since(started), marked=mark.written)
        if isinstance(submission, ChannelFault):
            return submission
        return conclude(claimed, channel, submission, _ms_since(started))

    async def make(self, in_hand: InHand, bounce_address: str | None) -> Order | None:
        """Make a message's order before its attempt. None for whatever is wrong with it: the attempt meets it again."""
        try:
            in_hand.order = await self._make_order(in_hand, bounce_address)
        except Exception:  # noqa: BLE001  told by the attempt
            return None
        return in_hand.order

    async def _make_order(self, in_hand: InHand, bounce_address: str | None) -> Order:
        began, claimed, stages = time.perf_counter(), in_hand.message, in_hand.stages
        mail = await self._make_mail(claimed)
        stages.render = time.perf_counter() - began
        return Order(mail, claimed.waiting, bounce_address, stages)

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
        codes = spread(self._claimed, letters)
        claimed = self._claimed
        mark = await self._delivery.advance(claimed.id, claimed.fence, codes, self._channel, self._pace)
        if mark != 1:
            raise REFUSED_MARKS.get(mark, FenceLostError)
        self.written = True


def _ms_since(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)
