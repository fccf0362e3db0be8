"""One mail over an open session: MAIL, RCPT…, DATA, body, commit mark, dot (RFC 5321 §3.3, RFC 2920).

The dot may have the next mail's opening along, in one write: content may begin a group of commands (RFC 2920 §3.1).
"""

from collections.abc import Awaitable, Callable

from postroom.failpoint import reach
from postroom.outcome import (
    Ambiguous,
    Answer,
    ChannelFault,
    Commit,
    Deferred,
    Phase,
    RecipientOutcome,
    Sent,
    Submission,
    Submitted,
)
from workers.channels.smtp_envelope import Envelope
from workers.channels.smtp_reply import Reply
from workers.channels.smtp_session import Features, SmtpTimeouts
from workers.channels.smtp_stream import Loss, LostError, SmtpStream
from workers.channels.smtp_table import Step, judge

NOT_IN_STEP = (500, 502, 503)  # about commands, in whatever place: the server sees others than were sent

LookAhead = Callable[[], Awaitable[Envelope | None]]


class StaleError(Exception):
    """A connection that had been open for a while was dead before anything was said about this mail."""


class Transaction:
    """Sends one envelope. Afterwards the stream is either ready for the next mail or lost."""

    def __init__(
        self,
        stream: SmtpStream,
        features: Features,
        timeouts: SmtpTimeouts,
        *,
        dialect: str,
        warm: bool,
        chosen_at: frozenset[Step] = frozenset(),
    ) -> None:
        self._stream = stream
        self._pipelining = "PIPELINING" in features.keywords
        self._timeouts = timeouts
        self._dialect = dialect
        self._chosen_at = chosen_at
        self._warm = warm
        self._answers: list[Answer | None] = []
        self._phase = Phase.MAIL
        self._opened = False  # together with the dot before it
        self._next: Envelope | None = None
        self.heard = False  # the server has answered an opening that came with a dot
        self.unheard: Loss | None = None  # how it was lost instead

    async def run(
        self, envelope: Envelope, commit: Commit, look_ahead: LookAhead | None = None
    ) -> Submission:
        """Send it, unless it is opened already, and with its dot the opening of the next.

        Raises:
            StaleError: the connection was warm and is dead; nothing was accepted, `commit` was not awaited.
            BaseException: what `commit` raised, or a cancellation. The caller aborts the stream then,
                which keeps the dot from ever being sent.
        """
        self._answers, self._opened = envelope.answers, envelope.opened
        ended = await self._address(envelope)
        if ended is None:
            ended = await self._send_body(envelope.data, look_ahead)
        if ended is None:
            await commit(tuple(self._answers))
            ended = await self._finish()
        return ended

    async def _address(self, envelope: Envelope) -> Submission | None:
        """MAIL, RCPT and DATA; None once the server waits for the content and has taken somebody."""
        if None not in self._answers:
            return self._submitted()
        if self._pipelining and not self._opened:
            self._stream.write(envelope.open())
        try:
            return (
                await self._mail(envelope.mail, len(envelope.rcpts))
                or await self._rcpts(envelope.rcpts)
                or await self._data()
            )
        except LostError as lost:
            self.unheard = lost.loss if self._opened else None
            return self._rest(Deferred(self._phase))

    async def _mail(self, command: bytes, recipients: int) -> Submission | None:
        self._phase = Phase.MAIL
        try:
            reply = await self._ask(command, self._timeouts.command)
        except LostError as lost:
            # What came with a dot a server may have thrown away: that costs nothing more than the wait.
            if self._warm and (lost.loss is Loss.CLOSED or self._opened):
                self.unheard = lost.loss if self._opened else None
                raise StaleError from lost
            raise
        if self._opened and reply.code in NOT_IN_STEP:
            self.unheard = Loss.GARBAGE
            self._stream.abort()
            raise StaleError
        self.heard = self._opened
        if reply.code // 100 == 2:
            return None
        # A server that closes an idle or much used connection may say so in place of MAIL's reply.
        if self._warm and reply.code == 421 and not (reply.enhanced or "").startswith("4.7."):
            self._stream.abort()
            raise StaleError
        refused = self._judge(Step.MAIL, reply)
        if isinstance(refused, ChannelFault):
            return refused
        ended = self._all(refused)
        if self._pipelining:
            await self._skip(recipients)
            if (await self._stream.read(self._timeouts.data_init)).code == 354:
                self._stream.abort()  # it may have taken recipients as well: even a lone dot could be mail
        return ended

    async def _rcpts(self, commands: list[bytes]) -> Submission | None:
        """Read every RCPT's reply; None also when all were refused, since DATA may be on its way."""
        self._phase = Phase.RCPT
        waiting = [position for position, answer in enumerate(self._answers) if answer is None]
        for position, command in zip(waiting, commands, strict=True):
            reply = await self._ask(command, self._timeouts.command)
            if reply.code // 100 != 2:  # 250, 251 and 252 all take the recipient
                refused = self._judge(Step.RCPT, reply)
                if isinstance(refused, ChannelFault):
                    return refused
                self._answers[position] = refused
        if None not in self._answers and not self._pipelining:
            await self._reset()
            return self._submitted()
        reach("after_rcpt")
        return None

    async def _data(self) -> Submission | None:
        addressed = None in self._answers
        if addressed:
            self._phase = Phase.DATA
        reply = await self._ask(b"DATA\r\n", self._timeouts.data_init)
        if not addressed:
            await self._end_unaddressed(reply)
            return self._submitted()
        if reply.code == 354:
            return None
        refused = self._judge(Step.DATA, reply)
        if isinstance(refused, ChannelFault):
            return refused
        ended = self._all(refused)
        await self._reset()
        return ended

    async def _send_body(self, data: bytes, look_ahead: LookAhead | None) -> Submission | None:
        """Send the content without its end, and meanwhile look ahead; None while the server still listens."""
        reach("after_354")
        self._phase = Phase.BODY
        self._stream.write(stuffed(data))
        reach("mid_body")
        if look_ahead is not None:
            self._next = await look_ahead()
        try:
            await self._stream.drain(self._timeouts.data_block)
        except LostError:
            return self._rest(Deferred(Phase.BODY))
        return await self._interrupted()

    async def _finish(self) -> Submission:
        """The dot. From the moment it is written until 250, 4yz or 5yz is read, nobody knows."""
        reach("after_mark")
        interrupted = await self._interrupted()
        if interrupted is not None:
            return interrupted  # the dot was not written: surely not accepted, in spite of the mark
        self._phase = Phase.DONE
        self._stream.write(b".\r\n" + self._next.open() if self._next else b".\r\n")
        reach("after_dot")
        try:
            reply = await self._stream.read(self._timeouts.data_done)
            if self._next is not None:
                self._stream.expect(self._next.commands)
            if reply.code == 250:
                return self._all(Answer(Sent(), 250, reply.enhanced))
            verdict = self._judge(Step.DONE, reply)
        except LostError:
            return self._rest(Ambiguous(Phase.DONE))
        if self._next is not None and reply.code in NOT_IN_STEP:
            # It means the company, not the mail: by itself this one may be taken.
            self.unheard = Loss.GARBAGE
            verdict = Answer(Deferred(Phase.DONE), reply.code, reply.enhanced)
            self._stream.abort()
        if reply.code == 421:
            self._stream.abort()
        return verdict if isinstance(verdict, ChannelFault) else self._all(verdict)

    async def _interrupted(self) -> Submission | None:
        """End without the dot if the connection is lost or the server spoke before its turn."""
        if self._stream.quiet:
            return None
        try:
            verdict = self._judge(Step.BODY, await self._stream.read(0))
        except LostError:
            verdict = Answer(Deferred(Phase.BODY))
        self._stream.abort()
        return verdict if isinstance(verdict, ChannelFault) else self._all(verdict)

    # What a step needs.

    async def _ask(self, command: bytes, seconds: float) -> Reply:
        """Return the reply to a command, which in a pipelined group has long been sent."""
        if not self._pipelining:
            self._stream.write(command)
        return await self._stream.read(seconds)

    def _judge(self, step: Step, reply: Reply) -> Answer | ChannelFault:
        verdict = judge(step, reply, dialect=self._dialect, chosen_sender=step in self._chosen_at)
        if verdict is None:
            self._stream.abort()
            raise LostError(Loss.GARBAGE)
        return verdict

    async def _skip(self, count: int) -> None:
        """Read replies that no longer matter, because a pipelined group must be read to its end."""
        for _ in range(count):
            if (await self._stream.read(self._timeouts.command)).code == 421:
                self._stream.abort()
                raise LostError(Loss.CLOSED)

    async def _end_unaddressed(self, reply: Reply) -> None:
        """Leave a transaction in which nobody was taken, whatever the server said to DATA.

        RFC 2920 §3.1: a server may answer 354 all the same. The lone dot ends that, nobody gets the empty
        mail, and the answers known from before stand.
        """
        if reply.code == 354:
            self._stream.write(b".\r\n")
            await self._stream.read(self._timeouts.command)
        else:
            await self._reset()

    async def _reset(self) -> None:
        """RSET, so that the next mail finds a clean session; a server that does not play along is left."""
        try:
            self._stream.write(b"RSET\r\n")
            if (await self._stream.read(self._timeouts.command)).code != 250:
                self._stream.abort()
        except LostError:
            pass

    def _all(self, answer: Answer) -> Submitted:
        """End all recipients that have no answer yet with this one."""
        self._answers = [known or answer for known in self._answers]
        return self._submitted()

    def _rest(self, outcome: RecipientOutcome) -> Submitted:
        return self._all(Answer(outcome))

    def _submitted(self) -> Submitted:
        return Submitted(tuple(answer for answer in self._answers if answer is not None))


def stuffed(data: bytes) -> bytes:
    """Double the dots that begin a line (RFC 5321 §4.5.2); the composer made sure that lines end in CRLF."""
    # Backwards it takes half the time, for line ends are rarer than dots; of three bytes Python skips as many.
    if data.rfind(b"\r\n.") >= 0:
        data = data.replace(b"\r\n.", b"\r\n..")
    return b"." + data if data.startswith(b".") else data
