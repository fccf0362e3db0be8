"""What is told of a worker's mail: a line in the log and a number, for everything that happens to a message."""

from structlog.typing import FilteringBoundLogger

from postroom.ending import account_end
from postroom.ledger.claimed import Claim, Claimed
from postroom.ledger.ends import Ended as EndedByItself
from postroom.ledger.finished import Finished
from postroom.log_events import QUIET_ENDS
from postroom.metrics import CarrierMetrics
from postroom.origin import trace_id_of
from postroom.states import State
from postroom.tracing import Tracing, known
from workers.channels.seam import Way
from workers.conclude import Ended
from workers.stages import Stages


class Account:
    """Counts and logs."""

    def __init__(
        self, metrics: CarrierMetrics, log: FilteringBoundLogger, tracing: Tracing | None = None
    ) -> None:
        self.metrics = metrics
        self.log = log
        self._tracing = tracing

    def claim(self, agent: str, claim: Claim) -> None:
        """Tell what a claim found out: messages that ended, leases that had run out, and a rate that is in the way."""
        if claim.paced:
            self.metrics.paced.labels(agent).inc()
        for ended in claim.ended:
            self.ended(ended)
        for lapsed in claim.lapsed:
            self.metrics.lapsed.labels(agent, lapsed.phase or "claimed").inc()
            if lapsed.phase == "committing":
                self.metrics.ambiguous.labels(agent).inc()
                self.metrics.attempts.by[agent, lapsed.channel, "ambiguous", "none"] += 1
            self.log.warning("lease.expired", agent=agent, message_id=lapsed.id, phase=lapsed.phase)

    def ended(self, ended: EndedByItself) -> None:
        """Tell of a message that ended without an attempt."""
        account_end(self.metrics, self.log, ended)

    def attempt(
        self, message: Claimed, ended: Ended, way: Way, finished: Finished | None, stages: Stages
    ) -> None:
        """Tell of a finished attempt, and of the message's end where it was one; None: it was somebody else's."""
        if finished is None:
            self.metrics.fence_lost.labels("finish").inc()
            self.log.warning(
                "fence.rejected",
                agent=message.agent,
                message_id=message.id,
                channel=way.channel,
                n=message.attempts + 1,
                step="finish",
                outcome=ended.outcome,
            )
            return
        self._count(message, ended, way, finished)
        request_id, traceparent, accept_us = _origin_of(message)
        last = finished.next_in_ms is None
        event = f"message.{finished.state}" if last else f"attempt.{ended.outcome}"
        quiet = finished.state in QUIET_ENDS if last else ended.outcome in ("sent", "deferred")
        tell = self.log.info if quiet else self.log.warning
        tell(
            event,
            message_id=message.id,
            client_ref=message.client_ref,
            request_id=request_id,
            trace_id=trace_id_of(request_id, traceparent),
            caller=message.caller,
            agent=message.agent,
            channel=way.channel,
            template=message.template or None,
            priority=message.priority,
            attempts=message.attempts + 1,
            outcome=ended.outcome,
            phase=ended.phase,
            reply_code=ended.reply_code,
            enhanced_code=ended.enhanced_code,
            provider_id=ended.provider_id or None,
            defect=ended.defect,
            state=finished.state,
            next_in_ms=finished.next_in_ms,
            age_ms=finished.age_ms,
            ms=ended.ms,
            **stages.to_ms(accept_us=accept_us, age_ms=finished.age_ms),
        )
        if self._tracing is not None:
            self._trace(self._tracing, message, ended, way, finished, stages)

    @staticmethod
    def _trace(
        tracing: Tracing, message: Claimed, ended: Ended, way: Way, finished: Finished, stages: Stages
    ) -> None:
        request_id, traceparent, accept_us = _origin_of(message)
        attributes = known(
            message_id=message.id,
            request_id=request_id,
            caller=message.caller,
            agent=message.agent,
            channel=way.channel,
            channel_kind=way.kind,
            template=message.template,
            priority=message.priority,
            attempt=message.attempts + 1,
            outcome=ended.outcome,
            phase=ended.phase,
            reply_code=ended.reply_code,
            enhanced_code=ended.enhanced_code,
            defect=ended.defect,
            state=finished.state,
            age_ms=finished.age_ms,
            **stages.to_ms(accept_us=accept_us, age_ms=finished.age_ms),
        )
        tracing.attempt(
            traceparent, ended.ms / 1000, attributes, failed=ended.outcome in ("refused", "ambiguous")
        )

    def _count(self, message: Claimed, ended: Ended, way: Way, finished: Finished) -> None:
        reply_class = f"{ended.reply_code // 100}xx" if ended.reply_code else "none"
        seconds, metrics = ended.ms / 1000, self.metrics
        metrics.attempts.by[message.agent, way.channel, ended.outcome, reply_class] += 1
        metrics.attempt_seconds.observe((way.kind,), seconds)
        metrics.busy_seconds.by[message.agent, way.channel] += seconds
        if ended.ambiguous:
            metrics.ambiguous.labels(message.agent).inc()
        if ended.defect is not None:
            metrics.render_failures.labels(message.template.partition("@")[0], ended.defect).inc()
        if finished.next_in_ms is None:
            metrics.finished.by[message.agent, message.priority, finished.state] += 1
        if finished.state == State.SENT:
            age = finished.age_ms / 1000
            metrics.latency.observe((message.retry_profile, message.priority), age)
            metrics.sent_age.by[(message.agent,)] += age


def _origin_of(message: Claimed) -> tuple[str, str, int]:
    payload = message.payload
    return (payload.request_id, payload.traceparent, payload.accept_us) if payload else ("", "", 0)
