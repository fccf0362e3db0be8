"""A connection to a relay: one authenticated session that carries one mail after the other.

While one is under way it looks ahead: the next one's MAIL, RCPTs and DATA travel with the dot of this one, which saves
a write, a wake-up and a round trip.
"""

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from postroom.address import domain_of
from postroom.config.units import seconds
from postroom.message import Mail
from postroom.outcome import ChannelFault, Commit, Deferred, Phase, Submission
from workers.channels.seam import Ahead, Order
from workers.channels.smtp_envelope import Envelope, envelope_for
from workers.channels.smtp_session import Features, goodbye
from workers.channels.smtp_stream import Loss, SmtpStream
from workers.channels.smtp_table import Step
from workers.channels.smtp_transaction import StaleError, Transaction
from workers.channels.smtp_zeptomail import may_lack_a_file, provider_headers, refer
from workers.channels.zeptomail_files import NOTHING

if TYPE_CHECKING:
    from workers.channels.smtp import SmtpRelay

WARM_SECONDS = 1.0  # an unused connection may be found dead, free of charge, after so long


class _Next(NamedTuple):
    """What comes after the mail under way, as it will be said to this server, and may be in part already."""

    order: Order
    envelope: Envelope


class SmtpConnection:
    """A `Connection`: one authenticated SMTP session, replaced under the hood when found dead."""

    def __init__(self, relay: "SmtpRelay", stream: SmtpStream, features: Features) -> None:
        self._relay = relay
        self._stream, self._features = stream, features
        self._loop = asyncio.get_running_loop()
        self._messages = 0
        self._since = self._loop.time()
        self._most_messages = relay.config.messages_per_connection
        self._longest_idle = seconds(relay.config.idle)
        self._next: _Next | None = None
        self._heard = False  # the server has answered what came with a dot

    @property
    def usable(self) -> bool:
        """False when dead, told something unasked, idle for too long, or after its share of messages.

        Servers count too, and name their limits rudely.
        """
        idle = self._loop.time() - self._since
        fresh = self._messages < self._most_messages and idle < self._longest_idle
        return fresh and self._stream.quiet

    async def submit(self, order: Order, commit: Commit, ahead: Ahead | None = None) -> Submission:
        """Compose and submit one message; what the composer raises comes out before a byte is sent.

        What the last dot had along is part of this message's transaction, or the connection is given up.
        """
        relay, mail, referred = self._relay, order.mail, NOTHING
        envelope = self._take_next(order)
        if envelope is None:
            began = time.perf_counter()
            if mail.attachments and relay.config.is_zeptomail:
                mail, referred = await refer(mail, relay.files)
            if any(file.provider_key for file in mail.attachments):
                # Only another channel of the agent knew the provider's file, and it left the file meanwhile.
                return order.all_end(Deferred(Phase.RENDER))
            envelope = self._envelope(order, mail)
            if order.stages is not None:
                order.stages.compose = time.perf_counter() - began
        try:
            try:
                ended = await self._transact(order, envelope, commit, ahead)
            except StaleError:
                # Nothing was accepted and nothing was marked, so one replacement costs the message nothing.
                ended = await self._replace() or await self._transact(
                    order, self._envelope(order, mail), commit, ahead
                )
        except BaseException:
            # The mark was refused, or the lane is cancelled: without the dot the server has no mail.
            self._stream.abort()
            raise
        if isinstance(ended, ChannelFault):
            self._stream.abort()
        self._messages += 1
        self._since = self._loop.time()
        if referred.older and relay.files is not None and may_lack_a_file(ended):
            # No reply says that a key is unknown, so a refusal may mean it: the next attempt has new ones.
            await relay.files.forget(referred)
            return order.all_end(Deferred(Phase.DONE))
        return ended

    async def aclose(self) -> None:
        """QUIT and close; where a transaction is open, only close: all that is said now might be its content."""
        if self._next is not None and self._next.envelope.opened:
            self._note_if_unheard(self._stream.loss)
            self._stream.abort()
        await goodbye(self._stream, self._relay.timeouts.quit)

    def _take_next(self, order: Order) -> Envelope | None:
        """Return what was made of this order ahead; nothing else is said in a transaction that was opened for it."""
        ahead, self._next = self._next, None
        if ahead is None:
            return None
        if ahead.order is order:
            return ahead.envelope
        if ahead.envelope.opened:
            self._stream.abort()
        return None

    async def _look_ahead(self, order: Order, ahead: Ahead) -> Envelope | None:
        """Make what will be said of the next message; None where nothing of it can travel with this one's dot."""
        began, envelope = time.perf_counter(), None
        coming = await ahead()
        # For attachments a cache may have to be asked, and beside their size a write is nothing.
        if coming is not None and not coming.mail.attachments:
            envelope = self._compose_ahead(coming)
        if order.stages is not None:
            order.stages.ahead = time.perf_counter() - began
        return envelope

    def _compose_ahead(self, order: Order) -> Envelope | None:
        began = time.perf_counter()
        try:
            envelope = self._envelope(order, order.mail)
        except Exception:  # noqa: BLE001  its own submission meets it again, and it is told there
            return None
        if order.stages is not None:
            order.stages.compose = time.perf_counter() - began
        self._next = _Next(order, envelope)
        return envelope if None in envelope.answers else None

    def _envelope(self, order: Order, mail: Mail) -> Envelope:
        """Compose for the server at the other end: another one behind the same name may offer something else."""
        relay, features = self._relay, self._features
        composed = relay.compose(mail, provider_headers(mail, relay.config), features.wire)
        return envelope_for(order, self._sender(order), composed, features)

    def _sender(self, order: Order) -> str:
        return order.bounce_address or self._relay.bounce_address or order.mail.sender.address

    async def _transact(
        self, order: Order, envelope: Envelope, commit: Commit, ahead: Ahead | None
    ) -> Submission:
        relay = self._relay
        warm = self._messages > 0 or self._loop.time() - self._since > WARM_SECONDS
        if warm and not self._stream.quiet:
            if envelope.opened:
                self._note_if_unheard(self._stream.loss)
            raise StaleError
        transaction = Transaction(
            self._stream,
            self._features,
            relay.timeouts,
            dialect=relay.config.dialect,
            warm=warm,
            chosen_at=_chosen_at(relay.own_domain, order.mail.sender.address, self._sender(order)),
        )
        look_ahead = partial(self._look_ahead, order, ahead) if ahead and self._may_look_ahead() else None
        try:
            return await transaction.run(envelope, commit, look_ahead)
        finally:
            self._heard = self._heard or transaction.heard
            self._note_if_unheard(transaction.unheard)

    def _may_look_ahead(self) -> bool:
        """True where one more message can go over this connection, and the server takes commands in groups."""
        grouped = self._relay.looks_ahead and "PIPELINING" in self._features.keywords
        return grouped and self._messages + 1 < self._most_messages and self._longest_idle > 0

    def _note_if_unheard(self, loss: Loss | None) -> None:
        """Look ahead no more over this channel if its server seems not to take what comes with a dot.

        One that has answered such a group over this connection, and then hangs up, is only gone.
        """
        if loss is Loss.TIMEOUT or (loss in (Loss.CLOSED, Loss.GARBAGE) and not self._heard):
            self._relay.looks_ahead = False

    async def _replace(self) -> ChannelFault | None:
        self._stream.abort()
        session = await self._relay.open()
        if isinstance(session, ChannelFault):
            return session
        self._stream, self._features = session
        self._messages, self._since, self._heard = 0, self._loop.time(), False
        return None


def _chosen_at(own_domain: str | None, author: str, sender: str) -> frozenset[Step]:
    """Return the steps at which a refused sender is the message's fault, since its caller chose the From domain."""
    if own_domain in (None, domain_of(author)):
        return frozenset()
    # A bounce address is the agent's own: its refusal at MAIL is never the fault of one message.
    return frozenset(Step) if sender == author else frozenset(Step) - {Step.MAIL}
