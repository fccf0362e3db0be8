"""The admin routes: what an operator looks at first, and all the acts, on the metrics port."""

from aiohttp import web
from structlog.typing import FilteringBoundLogger

from postroom.decode import Fault
from postroom.errors import Code, RefusedError
from postroom.explain import moment
from postroom.ledger.balance import BalanceRow
from postroom.ledger.watch import QueueDepth
from postroom.metrics import EdgeMetrics
from service.admin_agents import AgentActs
from service.admin_edge import AdminEdge, Call, not_found
from service.admin_failed import FailedLooks
from service.admin_messages import MessageActs
from service.admin_moment import read_moment
from service.auth import Authenticator
from service.operator_desk import OperatorDesk

DEFAULT_SINCE = "3h"
TAKE_QUERY = ("/admin/changes", "/admin/failed")  # they say themselves which parameters


def admin_routes(
    desk: OperatorDesk, authenticator: Authenticator, metrics: EdgeMetrics, log: FilteringBoundLogger
) -> list[web.RouteDef]:
    """Return the routes for the metrics port. Each asks for a token with the scope `admin`."""
    edge = AdminEdge(authenticator, metrics, log)
    agents, messages, looks = AgentActs(desk), MessageActs(desk), _Looks(desk)
    failed = FailedLooks(desk)
    table = [
        ("GET", "/admin/agents", agents.show),
        ("POST", "/admin/agents/{agent}/pause", agents.pause),
        ("POST", "/admin/agents/{agent}/resume", agents.resume),
        ("POST", "/admin/agents/{agent}/prefer", agents.prefer),
        ("POST", "/admin/messages/act", messages.act),
        ("POST", "/admin/messages/{id}/retry", messages.retry),
        ("POST", "/admin/messages/{id}/cancel", messages.cancel),
        ("POST", "/admin/messages/{id}/resolve", messages.resolve),
        ("GET", "/admin/messages/{id}/why", messages.why),
        ("GET", "/admin/queue", looks.queue),
        ("GET", "/admin/failed", failed.show),
        ("GET", "/admin/changes", looks.changes),
        ("GET", "/admin/balance", looks.balance),
        ("*", "/admin{rest:(/.*)?}", not_found),
    ]
    return [edge.route(method, path, handler, query=path in TAKE_QUERY) for method, path, handler in table]


class _Looks:
    def __init__(self, desk: OperatorDesk) -> None:
        self._desk = desk

    async def queue(self, _: Call) -> dict[str, list[QueueDepth]]:
        """Show the waiting mail of every agent, by priority."""
        return {"queues": await self._desk.watch.depth_and_held()}

    async def changes(self, call: Call) -> dict[str, list[dict[str, object]]]:
        """Show what was changed since a time, or for so long, oldest first."""
        if call.query.keys() - {"since"}:
            raise RefusedError(Code.BAD_REQUEST, "This path takes the query parameter since.")
        since = await read_moment(self._desk.watch, call.query.get("since", DEFAULT_SINCE))
        if since is None:
            faults = [Fault("/since", "is neither a duration such as 3h nor a time with zone")]
            raise RefusedError(Code.INVALID_REQUEST, "See errors.", faults=faults)
        found = await self._desk.journal.since(since)
        return {"changes": [{"at": moment(c.at), "kind": c.kind, "data": c.data} for c in found]}

    async def balance(self, _: Call) -> dict[str, list[dict[str, object]]]:
        """Show every agent's balance."""
        return {"balance": [_view(row) for row in await self._desk.watch.balance.rows()]}


def _view(row: BalanceRow) -> dict[str, object]:
    return {
        "agent": row.agent,
        "accepted": row.accepted,
        **row.ends,
        "waiting": row.waiting,
        "unaccounted": row.unaccounted,
    }
