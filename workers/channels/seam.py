"""The seam every channel is built to, and that `tests/channels` holds all of them to."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct

from postroom.message import Mail
from postroom.outcome import Answer, ChannelFault, Commit, RecipientOutcome, Submission, Submitted
from workers.stages import Stages


class Order(Struct, frozen=True):
    """One submission: the mail, who is to get it this time, and where bounces go.

    `recipients` are indexes into `mail.to + mail.cc + mail.bcc`, ascending: a retry carries only the
    deferred ones, while the header fields stay as they were.
    """

    mail: Mail
    recipients: tuple[int, ...]
    bounce_address: str | None = None  # envelope sender; None: the From address, or the provider's own
    stages: Stages | None = None  # where to say how long composing took, and making the next mail

    def all_end(
        self, outcome: RecipientOutcome, reply_code: int | None = None, enhanced_code: str | None = None
    ) -> Submitted:
        """Return the submission in which every recipient has the same outcome."""
        return Submitted((Answer(outcome, reply_code, enhanced_code),) * len(self.recipients))


# Makes the order that the lane will submit next over the same connection, or returns None where there is none. Never
# raises: what is wrong with that mail its own submission meets again, and tells.
Ahead = Callable[[], Awaitable[Order | None]]


class FileKeys(Protocol):
    """What a provider calls its copies of cached files, remembered over all workers.

    Nothing of it raises: without a key a file is attached, which is only slower.
    """

    async def get(self, file: str) -> str | None:
        """Return the key, or None, or empty while somebody uploads the file, NO_UPLOAD for a while after a failure."""
        ...

    async def begin(self, file: str) -> bool:
        """Announce an upload, and return whether it is ours to make."""
        ...

    async def end(self, file: str, key: str | None) -> None:
        """Tell what came of an upload."""
        ...

    async def rest(self, file: str | None) -> None:
        """Have this file attached for a while, or all that the provider has not yet."""
        ...

    async def forget(self, file: str, key: str) -> None:
        """Forget a key that the provider does not know any more."""
        ...


class Connection(Protocol):
    """A ready way to submit, used by one lane at a time."""

    @property
    def usable(self) -> bool:
        """False once the connection is known to be dead or used up: the lane opens another one."""
        ...

    async def submit(self, order: Order, commit: Commit, ahead: Ahead | None = None) -> Submission:
        """Submit one message and return how it ended, one answer per recipient of the order.

        A channel that gains by it may ask `ahead`, once and before it awaits `commit`, what is submitted next, and
        begin that one as well. Nothing of it may be accepted before the very same order is submitted and has its own
        mark, and where another order comes instead, or none, it is as if nothing had been begun.

        Awaits `commit` exactly once if the message gets as far as the commit mark, and never otherwise.
        Returns a value for everything the other side can do; raises only what `commit` raised, after
        making sure that the other side has not accepted the message. When cancelled it closes itself.
        """
        ...

    async def aclose(self) -> None:
        """Say goodbye and close. Never raises for what the other side does."""
        ...


class Check(Struct, frozen=True):
    """One thing a probe looked at: what it found, or what a person can do about it. `ok` None: not looked at."""

    name: str
    ok: bool | None
    text: str = ""


class Probe(Struct, frozen=True):
    """What a probe found, in order, and the fault that a message would have met."""

    checks: tuple[Check, ...]
    fault: ChannelFault | None = None


class Channel(Protocol):
    """One way out of an agent. Shared by all lanes of a process."""

    @property
    def name(self) -> str:
        """The channel's name in the configuration, unique within its agent."""
        ...

    async def connect(self) -> Connection | ChannelFault:
        """Open a connection that is ready to submit: resolved, connected, greeted, encrypted, authenticated.

        Returns the fault, never raises it, whatever the other side does or fails to do.
        """
        ...

    async def probe(self) -> Probe:
        """Look whether the channel would take mail now, without sending any. Never raises for the other side."""
        ...

    async def aclose(self) -> None:
        """Release what all connections of the channel share."""
        ...


class Way(Struct):
    """A ready connection, and the name and kind of its channel."""

    channel: str
    kind: str
    connection: Connection
    opened_in: float = 0.0  # seconds, until its first message has been charged with them
