"""What operators send and are answered. Strict: an unknown field is a fault."""

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

from postroom.config.structs import Duration, Name
from postroom.decode import Fault
from postroom.errors import Code, RefusedError
from postroom.ledger.operating import SHORT, Act, Filter, Position
from postroom.text import find_forbidden
from service.admin_moment import LATEST_MS, is_duration

Why = Annotated[str, Meta(max_length=200)]
Who = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,64}\Z")]
A_TEMPLATE = {"expected": "the name of a template: 1 to 64 of A-Z, a-z, 0-9, _, . and -"}
TemplateName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z", extra=A_TEMPLATE)]
ActId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Verb = Literal["pause", "release", "cancel", "expire"]


class Body(
    Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"as_user": "as", "lasts": "for"}
):
    """What all acts say: why, and who sits at the keyboard, as the command line knows it (not proved)."""

    reason: Why = ""
    as_user: Who = ""


class PauseBody(Body, frozen=True):
    """A pause needs a reason: callers see it. Without `for` it holds until it is ended."""

    reason: Annotated[str, Meta(min_length=1, max_length=200)]
    lasts: Duration | None = None


class PreferBody(Body, frozen=True):
    """A channel that goes first for a while; without one, the usual order."""

    channel: Name | None = None
    lasts: Duration | None = None


class ResolveBody(Body, frozen=True):
    """What became of a message whose fate was unknown: it was sent, or it was not and is tried again."""

    outcome: Literal["sent", "retry"]


class FilterBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which waiting mail is meant. Without any of the first four only with `all`.

    `skip_scheduled` leaves out of it what has its `send_at` still ahead.
    """

    agent: Name | None = None
    template: TemplateName | None = None
    caller: Name | None = None
    accepted_before: str | None = None
    all: bool = False
    skip_scheduled: bool = False


class Place(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where an act goes on, as the answer before said it. The sums are of the agents that are through.

    `till` is when what it holds goes on by itself, in ms since the epoch, or 0.
    """

    agent: Name
    priority: Annotated[str, Meta(pattern=r"^[hnb]\Z")] = "h"
    score: float = 0
    last: Annotated[str, Meta(max_length=64)] = ""
    passes: Annotated[int, Meta(ge=0, le=10)] = 0
    changed: bool = False
    done: Annotated[int, Meta(ge=0, le=2**40)] = 0
    too_late: Annotated[int, Meta(ge=0, le=2**40)] = 0
    done_before: Annotated[int, Meta(ge=0, le=2**40)] = 0
    too_late_before: Annotated[int, Meta(ge=0, le=2**40)] = 0
    till: Annotated[int, Meta(ge=0, le=LATEST_MS)] = 0

    @property
    def position(self) -> Position:
        """The place within its agent."""
        return Position(
            priority=self.priority,
            score=self.score,
            last=self.last,
            passes=self.passes,
            changed=self.changed,
            done=self.done,
            too_late=self.too_late,
        )


class ActBody(Body, frozen=True):
    """A verb over waiting mail by filter. `act` names it over all its calls, `at` is `next` of the answer before.

    A pause with `for` lets the mail go on by itself so long after the first call, by Redis's clock.
    """

    act: ActId
    verb: Verb
    filter: FilterBody
    dry_run: bool = False
    at: Place | None = None
    lasts: Duration | None = None

    @property
    def fixes_moment(self) -> bool:
        """True for the first call of an act whose `accepted_before` is a duration: it only says which time that is."""
        return self.at is None and is_duration(self.filter.accepted_before)

    def to_act(self, who: str, before: int | None, till: int) -> Act:
        """Return the act. `before` is its filter's `accepted_before` in ms, 0 without one, None where it is no moment.

        What it holds goes on by itself at `till`, in ms, or never with 0.

        Raises:
            RefusedError: its filter is empty or names no time; a pause without a reason, or with too long a one.
        """
        faults = [*self._filter_faults(before), *self._reason_faults()]
        if faults:
            raise RefusedError(Code.INVALID_REQUEST, "See errors.", faults=faults)
        wanted = self.filter
        return Act(
            id=self.act,
            verb=self.verb,
            wanted=Filter(wanted.template or "", wanted.caller or "", before or 0, wanted.skip_scheduled),
            counts_only=self.dry_run,
            who=who,
            reason=self.reason,
            till=till,
        )

    def _filter_faults(self, before: int | None) -> Iterator[Fault]:
        wanted = self.filter
        if before is None or (wanted.accepted_before is not None and not 0 < before < LATEST_MS):
            text = "is neither a time with zone such as 2027-01-31T12:00:00Z nor a duration such as 2h, since 1970"
            yield Fault("/filter/accepted_before", text)
        elif self.at is not None and is_duration(wanted.accepted_before):
            text = "must be the time that the first answer gave: a duration ago is another time by now"
            yield Fault("/filter/accepted_before", text)
        if not (wanted.agent or wanted.template or wanted.caller or wanted.accepted_before or wanted.all):
            yield Fault("/filter", "names nothing: say all, if all waiting mail is meant")

    def _reason_faults(self) -> Iterator[Fault]:
        if self.verb != "pause":
            if self.lasts is not None:
                yield Fault("/for", "goes with pause only")
            return
        if not self.reason and not self.dry_run:
            yield Fault("/reason", "required, but missing")
        if len(self.reason.encode()) > SHORT:
            yield Fault(
                "/reason", f"must be at most {SHORT} bytes of UTF-8: each message that is held keeps it"
            )


class Acted(Struct, frozen=True):
    """What an act has done so far, over all agents. `next` is null once it is through.

    `accepted_before` is its filter's, as a time: a duration is counted back from the first call, by Redis's clock.
    `until` is when what a pause holds goes on by itself.
    """

    done: int
    too_late: int
    next: Place | None
    accepted_before: str | None = None
    until: str | None = None


class Paused(Struct, frozen=True):
    """A pause, or its end; mail of an agent that is not configured waits all the same."""

    agent: str
    paused: bool
    since: str | None = None
    until: str | None = None
    configured: bool = True


class Preferred(Struct, frozen=True):
    """A preference, or its end."""

    agent: str
    channel: str | None
    until: str | None


class Done(Struct, frozen=True):
    """What an act did to one message: its state now, or why nothing was done."""

    id: str
    done: bool
    state: str
    text: str


class FaultView(Struct, frozen=True):
    """A channel that stands still."""

    channel: str
    cause: str
    since: str | None
    again_at: str | None
    text: str


class LastErrorView(Struct, frozen=True):
    """What the agent's last attempt met that did not send to everybody."""

    at: str | None
    seconds_ago: float
    channel: str
    outcome: str
    phase: str
    reply_code: str | None
    enhanced_code: str | None


class AgentView(Struct, frozen=True, kw_only=True):
    """An agent at a glance. `state` is working, paused or stopped (no channel is left).

    `held` of its waiting mail wait for a person; where `held_is_least`, that many at least.
    """

    agent: str
    owner: str
    labels: dict[str, str] = {}
    configured: bool
    state: str
    since: str | None = None
    until: str | None = None
    who: str | None = None
    reason: str | None = None
    waiting: int = 0
    due: int = 0
    held: int = 0
    held_is_least: bool = False
    oldest_due_seconds: float = 0.0
    connections: int = 0
    faults: list[FaultView] = []
    last_error: LastErrorView | None = None
    preferred: str | None = None
    preferred_until: str | None = None


def check_reason(reason: str) -> None:
    """Refuse control characters: the reason is shown on terminals and to callers.

    Raises:
        RefusedError: there is one.
    """
    if found := find_forbidden(reason):
        faults = [Fault("/reason", f"must not contain {found}")]
        raise RefusedError(Code.INVALID_REQUEST, "See errors.", faults=faults)
