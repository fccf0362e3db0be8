"""What stands over an agent: a pause, a preferred channel, the faults of its channels. As read from the ledger."""

from collections.abc import Mapping

from msgspec import Struct


class StoredFault(Struct, frozen=True):
    """A channel that stands still: until when it is not tried, since when, and why. Times in ms."""

    till: int
    since: int
    times: int
    cause: str
    reply_code: str
    enhanced_code: str
    text: str


class Pause(Struct, frozen=True):
    """An agent that a person paused; `till` is 0 where it has no end. Times in ms."""

    since: int
    till: int
    who: str
    reason: str


class LastError(Struct, frozen=True):
    """What the last attempt met that did not send to everybody; `at` in ms, codes empty where there were none."""

    at: int
    channel: str
    outcome: str
    phase: str
    reply_code: str
    enhanced_code: str


class Standing(Struct, frozen=True):
    """What stands over an agent at `now` (Redis's clock, ms).

    `version` changes with every act and every fault. `since` is when it came to a standstill, paused or without a
    channel, None while it works; `total` how long it stood still before that. `preferred` is a channel that goes
    first for a while.
    """

    now: int = 0
    version: int = 0
    since: int | None = None
    total: int = 0
    pause: Pause | None = None
    stopped: bool = False
    preferred: str | None = None
    preferred_till: int = 0
    faults: dict[str, StoredFault] = {}
    last_error: LastError | None = None

    @property
    def stood_still(self) -> int:
        """How long the agent has stood still in all, in ms; as the scripts' prelude counts it."""
        if self.since is None:
            return self.total
        return self.total + max(0, self._till - self.since)

    @property
    def _till(self) -> int:
        ended_by_itself = not self.stopped and self.pause is not None and 0 < self.pause.till < self.now
        return self.pause.till if ended_by_itself and self.pause else self.now

    @property
    def paused(self) -> bool:
        """True while a person's pause holds."""
        return self.pause is not None and (self.pause.till == 0 or self.pause.till > self.now)


def read_standing(halt: Mapping[bytes, bytes], faults: Mapping[bytes, bytes], now: int) -> Standing:
    """Build it from the fields of its two hashes."""
    get = {key.decode(): value.decode() for key, value in halt.items()}
    pause = None
    if "pu" in get:
        pause = Pause(int(get.get("ps", 0)), int(get["pu"]), get.get("pw", ""), get.get("pr", ""))
    preferred_till = int(get.get("pcu", 0))
    return Standing(
        now=now,
        version=int(get.get("v", 0)),
        since=int(get["since"]) if "since" in get else None,
        total=int(get.get("total", 0)),
        pause=pause,
        stopped=get.get("st") == "1",
        preferred=get.get("pc") if preferred_till > now else None,
        preferred_till=preferred_till,
        faults=_read_faults(faults),
        last_error=_read_last_error(get.get("le")),
    )


def _read_last_error(text: str | None) -> LastError | None:
    if text is None:
        return None
    at, channel, outcome, phase, code, enhanced, *_ = text.split("|")
    return LastError(int(at), channel, outcome, phase, code, enhanced)


def _read_faults(fields: Mapping[bytes, bytes]) -> dict[str, StoredFault]:
    faults = {}
    for channel, value in fields.items():
        till, since, times, cause, code, enhanced, text = value.decode().split("|", 6)
        faults[channel.decode()] = StoredFault(int(till), int(since), int(times), cause, code, enhanced, text)
    return faults
