"""The end of a message that no attempt ended, in numbers and in the log; `workers.account` tells those of attempts."""

from structlog.typing import FilteringBoundLogger

from postroom.ledger.ends import Ended
from postroom.ledger.keys import agent_of
from postroom.log_events import QUIET_ENDS
from postroom.metrics import CarrierMetrics, EdgeMetrics
from postroom.origin import trace_id_of


def account_end(
    metrics: EdgeMetrics | CarrierMetrics,
    log: FilteringBoundLogger,
    ended: Ended,
    *,
    superseded_by: str | None = None,
    ended_by_request: str | None = None,
    operator: bool | None = None,
) -> None:
    """Count it, and write its last line, as wide as any other: the whole age was waiting."""
    agent = agent_of(ended.id)
    metrics.finished.by[agent, ended.priority, ended.state] += 1
    tell = log.info if ended.state in QUIET_ENDS or ended.how == "settled" else log.warning
    event = "message.resolved" if ended.how == "settled" else f"message.{ended.state}"
    tell(
        event,
        message_id=ended.id,
        client_ref=ended.client_ref,
        request_id=ended.request_id or None,
        trace_id=trace_id_of(ended.request_id, ended.traceparent) or None,
        caller=ended.caller,
        agent=agent,
        channel=ended.channel or None,
        template=ended.template or None,
        priority=ended.priority,
        attempts=ended.attempts,
        outcome=ended.how,
        state=ended.state,
        age_ms=ended.age_ms,
        accept_ms=round(ended.accept_us / 1000, 1),
        queue_ms=ended.age_ms,
        superseded_by=superseded_by,
        ended_by_request=ended_by_request,
        operator=operator,
    )
