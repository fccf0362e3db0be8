"""What an operator asks about mail that ended badly."""

from msgspec import Struct

from postroom.decode import Fault
from postroom.errors import Code, RefusedError
from postroom.explain import moment
from postroom.ledger.failures import BADLY, Failure, Failures, Wanted
from postroom.states import State
from service.admin_edge import Call
from service.admin_moment import read_moment
from service.operator_desk import OperatorDesk

LOOK_SECONDS = 0.3  # how long one call looks before it says where to go on
MOST = 500
PARAMETERS = ("agent", "template", "caller", "since", "ended_before", "state", "cursor")


class FailedView(Struct, frozen=True, kw_only=True):
    """One message that ended badly. No address, no content."""

    id: str
    state: str
    ended_at: str | None
    agent: str
    caller: str
    client_ref: str
    template: str | None
    attempts: int
    phase: str | None
    reply_code: int | None
    enhanced_code: str | None
    can_be_replayed: bool


class FailedPage(Struct, frozen=True):
    """What one call found; `next` is the cursor to go on with. Both moments are fixed by the first call."""

    failed: list[FailedView]
    next: str | None
    since: str | None
    ended_before: str | None


class FailedLooks:
    """The handler."""

    def __init__(self, desk: OperatorDesk) -> None:
        self._desk = desk
        self._failures = Failures(desk.client)

    async def show(self, call: Call) -> FailedPage:
        """Show messages that ended badly, a part at a time, until `next` is null."""
        wanted, cursor = await self._read(call)
        page = await self._failures.page(wanted, cursor, seconds=LOOK_SECONDS, most=MOST)
        return FailedPage(
            [_view(failure) for failure in page.found],
            None if page.cursor is None else str(page.cursor),
            moment(wanted.since or None),
            moment(wanted.until),
        )

    async def _read(self, call: Call) -> tuple[Wanted, int]:
        query, faults = call.query, []
        if unknown := call.query.keys() - set(PARAMETERS):
            faults += [Fault(f"/{name}", "unknown parameter") for name in sorted(unknown)]
        states = query.get("state", State.FAILED).split(",")
        if not set(states) <= set(BADLY):
            faults.append(Fault("/state", f"must be among: {', '.join(BADLY)}"))
        cursor = query.get("cursor", "0")
        if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 24):
            faults.append(Fault("/cursor", "is none of ours"))
        since = await read_moment(self._desk.watch, query["since"]) if "since" in query else 0
        until = await read_moment(self._desk.watch, query.get("ended_before", "0s"))
        for name, found in (("since", since), ("ended_before", until)):
            if found is None:
                faults.append(Fault(f"/{name}", "is neither a duration such as 3h nor a time with zone"))
        if faults or since is None or until is None:
            raise RefusedError(Code.INVALID_REQUEST, "See errors.", faults=faults)
        names = {name: query.get(name, "") for name in ("agent", "template", "caller")}
        return Wanted(states=tuple(map(State, states)), since=since, until=until, **names), int(cursor)


def _view(failure: Failure) -> FailedView:
    record = failure.record
    last = record.attempts[-1] if record.attempts else None
    return FailedView(
        id=record.id,
        state=record.state,
        ended_at=moment(record.finished_at),
        agent=record.agent,
        caller=record.caller,
        client_ref=record.client_ref,
        template="@".join(record.template) if record.template else None,
        attempts=record.attempted,
        phase=last.phase if last else None,
        reply_code=last.reply_code if last else None,
        enhanced_code=last.enhanced_code if last else None,
        can_be_replayed=failure.kept,
    )
