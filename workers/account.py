"""What is told of a worker's mail: a line in the log and a number, for everything that happens to a message."""

from structlog.typing import FilteringBoundLogger

from postroom.ledger.delivery import Claim, Claimed, Finished
from postroom.ledger.delivery import Ended as EndedByItself
from postroom.metrics import CarrierMetrics
from postroom.states import State
from workers.attempt import Ended


class Account:
    """Counts and logs."""

    def __init__(self, metrics: CarrierMetrics, log: FilteringBoundLogger) -> None:
        self.metrics = metrics
        self.log = log

    def claim(self, agent: str, claim: Claim) -> None:
        """Tell what a claim found out by itself: messages that ended, and leases that had run out."""
        for ended in claim.ended:
            self.ended(agent, ended)
        for lapsed in claim.lapsed:
            self.metrics.lapsed.labels(agent, lapsed.phase or "claimed").inc()
            if lapsed.phase == "committing":
                self.metrics.ambiguous.labels(agent).inc()
                self.metrics.attempts.labels(agent, lapsed.channel, "ambiguous", "none").inc()
            self.log.warning("lease.expired", agent=agent, message_id=lapsed.id, phase=lapsed.phase)

    def ended(self, agent: str, ended: EndedByItself) -> None:
        """Tell of a message that ended without an attempt."""
        self.metrics.finished.labels(agent, ended.priority, ended.state).inc()
        event = f"message.{ended.state}"
        self.log.warning(event, agent=agent, message_id=ended.id, age_ms=ended.age_ms)

    def attempt(self, message: Claimed, ended: Ended, channel: str, finished: Finished | None) -> None:
        """Tell of a finished attempt, and of the message's end where it was one; None: it was somebody else's."""
        log = self.log.bind(
            message_id=message.id,
            client_ref=message.client_ref,
            caller=message.caller,
            agent=message.agent,
            channel=channel,
            n=message.attempts + 1,
        )
        if finished is None:
            self.metrics.fence_lost.labels("finish").inc()
            log.warning("fence.rejected", step="finish", outcome=ended.outcome)
            return
        reply_class = f"{ended.reply_code // 100}xx" if ended.reply_code else "none"
        self.metrics.attempts.labels(message.agent, channel, ended.outcome, reply_class).inc()
        self.metrics.attempt_seconds.labels(message.agent, channel).observe(ended.ms / 1000)
        if ended.ambiguous:
            self.metrics.ambiguous.labels(message.agent).inc()
        if ended.defect is not None:
            self.metrics.render_failures.labels(message.template.partition("@")[0], ended.defect).inc()
        if finished.next_in_ms is None:
            self.metrics.finished.labels(message.agent, message.priority, finished.state).inc()
        if finished.state == State.SENT:
            self.metrics.latency.labels(message.agent, message.priority).observe(finished.age_ms / 1000)
        tell = log.info if ended.outcome in ("sent", "deferred") else log.warning
        tell(
            f"attempt.{ended.outcome}",
            phase=ended.phase,
            reply_code=ended.reply_code,
            enhanced_code=ended.enhanced_code,
            ms=ended.ms,
            provider_id=ended.provider_id or None,
            defect=ended.defect,
            state=finished.state,
            next_in_ms=finished.next_in_ms,
            age_ms=finished.age_ms,
        )
