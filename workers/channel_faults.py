"""What a process knows against the channels of an agent: the ledger's record as last read, and what it saw since."""

import time

from msgspec import Struct

from postroom.config.structs import Breaker
from postroom.config.units import milliseconds
from postroom.ledger.limits import Stop
from postroom.ledger.standing import Standing
from postroom.outcome import BY_A_PERSON, Cause, ChannelFault

PROBED = frozenset({Cause.CONNECT, Cause.AUTH})  # what a probe can prove mended; the rest only a message can
STILL_THE_SAME = {("refused", Cause.POLICY), ("deferred", Cause.THROTTLE)}
HANGS_UP = (
    "the server hangs up in the midst of mail: look at its log, and at firewalls and proxies on the way"
)
AT_ONCE = frozenset({Cause.AUTH, Cause.THROTTLE})  # said outright: no further evidence is asked for
PERSON_FACTOR = 5  # how much longer a stop is that only a person can end
QUICK_LONGEST_MS = 60_000  # what may pass by itself is tried at least so often


def stop_for(breaker: Breaker, fault: ChannelFault, at_once: bool | None) -> Stop:
    """Return how a fault stops its channel; `at_once` tells whether this alone is enough, unset its cause does."""
    person = fault.cause in BY_A_PERSON
    said = fault.cause in AT_ONCE or fault.retry_after is not None if at_once is None else at_once
    longest = milliseconds(breaker.longest)
    shortest = milliseconds(breaker.shortest) * (PERSON_FACTOR if person else 1)
    return Stop(
        faults=1 if said else breaker.faults,
        window_ms=milliseconds(breaker.window),
        shortest_ms=min(shortest, longest),
        longest_ms=longest if person else min(longest, QUICK_LONGEST_MS),
    )


class ChannelFaults(Struct):
    """By channel; times are of this process's monotonic clock."""

    stopped: dict[str, float] = {}  # when to try it again
    denied: dict[str, float] = {}  # when to ask again, since another lane is trying it
    causes: dict[str, str] = {}  # of a fault in the ledger that is not yet proved mended
    silent: set[str] = set()  # of those, channels that hang up in the midst of mail
    tried: set[str] = set()  # there is evidence against it, and no fault yet

    def read(self, standing: Standing) -> None:
        """Take over what all workers found out."""
        now = time.monotonic()
        self.causes = {name: fault.cause for name, fault in standing.faults.items()}
        self.silent = {name for name, fault in standing.faults.items() if fault.text == HANGS_UP}
        self.stopped = {
            name: now + (fault.till - standing.now) / 1000
            for name, fault in standing.faults.items()
            if fault.till > standing.now
        }

    def note(self, channel: str, cause: Cause, *, silent: bool) -> None:
        """Remember a fault."""
        self.causes[channel] = cause
        (self.silent.add if silent else self.silent.discard)(channel)

    def rest(self, channel: str, ms: int) -> None:
        """Let a channel stand still for so long."""
        self.stopped[channel] = time.monotonic() + ms / 1000

    def deny(self, channel: str, ms: int) -> None:
        """Leave a channel to the lane that is trying it, for so long."""
        self.denied[channel] = time.monotonic() + ms / 1000

    def forget(self, channel: str) -> None:
        """Trust a channel again."""
        for known in (self.causes, self.stopped, self.denied):
            known.pop(channel, None)
        self.tried.discard(channel)
        self.silent.discard(channel)

    def is_sound(self, channel: str) -> bool:
        """True where nothing is known against it."""
        return not any(channel in known for known in (self.stopped, self.causes, self.tried))

    def stands_still(self, channel: str) -> bool:
        """True until it may be tried again."""
        return self.stopped.get(channel, 0.0) > time.monotonic()

    def closed_for(self, channel: str) -> float:
        """Return the seconds until a lane may try it, or ask to."""
        until = max(self.stopped.get(channel, 0.0), self.denied.get(channel, 0.0))
        return max(0.0, until - time.monotonic())

    def can_be_probed(self, channel: str) -> bool:
        """One that hangs up in the midst of mail is fine until it is given some: only a message can tell."""
        return self.causes.get(channel) in PROBED and channel not in self.silent

    def may_go_on(self, channel: str) -> bool:
        """A connection that is open outlives its channel's failure to open another one."""
        if not self.stands_still(channel):
            return True
        return self.causes.get(channel, Cause.CONNECT) == Cause.CONNECT and channel not in self.silent

    def is_disproved(self, channel: str, outcome: str) -> bool:
        """True where an answer for a message, which ended so, shows that what is known against a channel is over."""
        if channel not in self.causes and channel not in self.tried:
            return False
        # What answers while the channel stands still was under way before, and proves nothing.
        if self.stands_still(channel):
            return False
        # One that stands still because it refuses or puts off everything must send something to be trusted again.
        return (outcome, self.causes.get(channel)) not in STILL_THE_SAME
