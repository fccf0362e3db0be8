"""Metrics of what is the same for all processes: queues, agents, channels, Redis."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from postroom.config.structs import Agent, Canary
from postroom.config.units import seconds
from postroom.ledger.balance import BalanceRow
from postroom.ledger.canaries import Beat
from postroom.ledger.standing import Standing
from postroom.ledger.watch import Fitness, QueueDepth


class SharedMetrics:
    """What is the same for all processes, told by the one that has the role (`postroom.exporter`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            made = Gauge(f"postroom_{name}", text, labels, registry=registry)
            self._all.append(made)
            return made

        self._all: list[Gauge] = []
        queue = ("agent", "priority")
        self._exporter = gauge(
            "exporter", "1 from the one process that reads what is the same for all.", "role"
        )
        self._waiting = gauge("queue_messages", "Waiting messages, leased ones included.", *queue)
        self._due = gauge("queue_due_messages", "Messages due now.", *queue)
        self._oldest = gauge("oldest_due_seconds", "Age of the oldest message due now.", *queue)
        self._unaccounted = gauge(
            "messages_unaccounted",
            "Accepted messages less those that ended and those that wait; anything but 0 is a defect or a loss.",
            "agent",
        )
        self._info = gauge("agent_info", "1 for each configured agent.", "agent", "owner", "retry_profile")
        self._labels = gauge("agent_label", "1 for each label of each agent.", "agent", "label", "value")
        self._connections = gauge(
            "agent_connections", "Connections an agent may have, over all workers.", "agent"
        )
        self._paused = gauge("agent_paused", "1 for each agent that a person paused.", "agent")
        self._stopped = gauge(
            "channel_stopped", "1 for each channel that stands still.", "agent", "channel", "cause"
        )
        self._memory = gauge(
            "redis_memory_ratio", "Memory used by Redis, of its maxmemory; 0: no limit.", "redis"
        )
        self._canary_good = gauge(
            "canary_last_good_timestamp_seconds",
            "When the last canary that arrived at the provider was sent, in Unix time; 0: none ever.",
            "agent",
        )
        self._canary_seconds = gauge(
            "canary_duration_seconds", "Time of that canary by stage: accept, and from accepted to sent.",
            "agent", "stage",
        )  # fmt: skip
        self._canary_every = gauge("canary_interval_seconds", "How often a canary is sent.", "agent")
        self._durable = gauge("redis_durable", "1 where Redis writes an append-only file.", "redis")

    def clear(self) -> None:
        """Tell nothing of it."""
        for gauge in self._all:
            gauge.clear()

    def show_queues(self, depths: list[QueueDepth]) -> None:
        """Tell the depth and age of each queue that holds mail; an empty one has no series."""
        self._exporter.labels("shared").set(1)
        for row in depths:
            labels = (row.agent, row.priority)
            self._waiting.labels(*labels).set(row.waiting)
            self._due.labels(*labels).set(row.due)
            self._oldest.labels(*labels).set(row.oldest_due_ms / 1000)

    def show_balance(self, rows: list[BalanceRow]) -> None:
        """Tell what is unaccounted for."""
        for row in rows:
            self._unaccounted.labels(row.agent).set(row.unaccounted)

    def show_agents(self, agents: Mapping[str, Agent]) -> None:
        """Tell whose each agent is, its labels, and how many connections it may have."""
        for name, agent in agents.items():
            self._info.labels(name, agent.owner, agent.retry_profile).set(1)
            self._connections.labels(name).set(agent.connections)
            for label, value in agent.labels.items():
                self._labels.labels(name, label, value).set(1)

    def show_standings(self, standings: Mapping[str, Standing]) -> None:
        """Tell which agents are paused, and which channels stand still."""
        for agent, standing in standings.items():
            if standing.paused:
                self._paused.labels(agent).set(1)
            for channel, fault in standing.faults.items():
                self._stopped.labels(agent, channel, fault.cause).set(1)

    def show_redis(self, fitness: Fitness) -> None:
        """Tell of the ledger's Redis; durability only where it says so."""
        self._memory.labels("ledger").set(fitness.memory_share)
        if fitness.durable is not None:
            self._durable.labels("ledger").set(fitness.durable)

    def show_canaries(self, canaries: Mapping[str, Canary], beats: Mapping[str, Beat]) -> None:
        """Tell when each agent's canary last arrived, and how long it took."""
        for agent, canary in canaries.items():
            beat = beats.get(agent, Beat())
            self._canary_every.labels(agent).set(seconds(canary.every))
            self._canary_good.labels(agent).set(beat.good_at / 1000)
            if beat.good_at:
                self._canary_seconds.labels(agent, "accept").set(beat.good_accept_us / 1e6)
                self._canary_seconds.labels(agent, "sent").set(beat.good_sent_ms / 1000)
