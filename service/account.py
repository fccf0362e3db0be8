"""What is counted and logged of the mail that this process takes in, or calls back."""

from typing import Any

from structlog.typing import FilteringBoundLogger

from postroom.ending import account_end
from postroom.ledger.accept import Offer
from postroom.ledger.ends import Ended
from postroom.ledger.keys import agent_of
from postroom.ledger.record import Record
from postroom.metrics import EdgeMetrics
from postroom.origin import Origin
from postroom.states import State
from service.accept import Accepted


class Account:
    """Tells logs and metrics, and nothing else, what became of requests."""

    def __init__(self, metrics: EdgeMetrics, log: FilteringBoundLogger) -> None:
        self._metrics, self._log = metrics, log

    def file(self, caller: str, *, size: int, new: bool, request_id: str) -> None:
        """Count and log an upload."""
        self._metrics.files.labels(caller, "kept" if new else "known").inc()
        self._log.info("file.kept", request_id=request_id, caller=caller, size=size, new=new)

    def accepted(self, accepted: Accepted, origin: Origin, ms: float, length: int) -> None:
        """Count and log an acceptance: how long it took, and the bytes of its answer."""
        if accepted.created is None:
            self._replayed(accepted.record, origin, ms, length)
            return
        offer = accepted.offer
        assert offer is not None
        self._metrics.accepted.by[offer.caller, offer.agent, offer.priority] += 1
        # Spelt out rather than bound: binding makes a logger for each message.
        self._log.info(
            "message.accepted",
            request_id=origin.request_id,
            trace_id=origin.trace_id,
            caller=offer.caller,
            agent=offer.agent,
            message_id=offer.id,
            client_ref=offer.client_ref,
            priority=offer.priority,
            recipients=len(offer.payload.recipients),
            template=offer.payload.template.name if offer.payload.template else None,
            ms=ms,
            bytes=length,
        )
        if accepted.created.braked:
            self._braked(offer, first=accepted.created.storm_began)
        for ended in accepted.created.superseded:
            self.ended(ended, superseded_by=offer.id, ended_by_request=origin.request_id)

    def _replayed(self, record: Record | None, origin: Origin, ms: float, length: int) -> None:
        assert record is not None
        self._metrics.replays.labels(record.caller, "replay").inc()
        self._log.info(
            "message.replayed",
            request_id=origin.request_id,
            trace_id=origin.trace_id,
            caller=record.caller,
            agent=record.agent,
            message_id=record.id,
            client_ref=record.client_ref,
            ms=ms,
            bytes=length,
        )

    def _braked(self, offer: Offer, *, first: bool) -> None:
        self._metrics.storm_braked.labels(offer.agent).inc()
        if first:
            template = offer.payload.template
            self._log.warning(
                "storm.braked",
                agent=offer.agent,
                caller=offer.caller,
                template=template.name if template else None,
                message_id=offer.id,
            )

    def cancelled(self, ended: Ended, request_id: str) -> None:
        """Count and log a message that was called back, as what it ended: an earlier attempt may have reached some."""
        if ended.state == State.CANCELLED:
            self._metrics.cancelled.labels(ended.caller, agent_of(ended.id)).inc()
        self.ended(ended, ended_by_request=request_id)

    def ended(self, ended: Ended, **why: Any) -> None:
        """Count and log a message that no attempt ended."""
        account_end(self._metrics, self._log, ended, **why)
