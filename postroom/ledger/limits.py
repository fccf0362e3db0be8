"""What the ledger keeps an agent and its channels to, over all workers."""

from msgspec import Struct


class Pace(Struct, frozen=True):
    """An agent's rate: microseconds a message (0: unlimited) and how many may go at once.

    `per_day` are recipients (0: unlimited), `midnights` the ends of some days around now, in ms since the epoch.
    """

    interval_us: int = 0
    burst: int = 1
    per_day: int = 0
    midnights: tuple[int, ...] = ()


UNLIMITED = Pace()


class Limits(Struct, frozen=True):
    """What the ledger keeps an agent to, over all workers."""

    connections: int = 10
    pace: Pace = UNLIMITED
    ambiguous_retries: int = 1  # of a message whose fate is unknown, where its policy is to try again
    refusals: int = 1_000_000  # so many, and nothing sent in between, are the channel's fault
    refusal_window_ms: int = 600_000
    guarded_wait_ms: int = 20_000  # how long such a message lets others go first


class Stop(Struct, frozen=True):
    """How a channel's fault stops it: after how many within how long, and for how long, in ms."""

    faults: int
    window_ms: int
    shortest_ms: int
    longest_ms: int
