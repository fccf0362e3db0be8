"""Every metric by name. Labels are bounded: never a recipient, an id, a ref or anybody's text."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics

from postroom import __version__
from postroom.config.change import Change
from postroom.config.rules import read_time
from postroom.config.structs import Config
from postroom.counting import Spread, Sums
from postroom.shared_metrics import SharedMetrics

LATENCY_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400)
ATTEMPT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
REDIS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

disable_created_metrics()  # type: ignore[no-untyped-call]


class PipeMetrics:
    """Round trips of the ledger's scripts: how long they take, and how many calls share one (group commit)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Spread(
            "postroom_redis_op_duration_seconds", "Time of one round trip of scripts, WAIT included.", ("op",),
            registry, bounds=REDIS_BUCKETS,
        )  # fmt: skip
        self._calls = Spread(
            "postroom_redis_batch_calls", "Calls that shared one round trip.", ("op",), registry,
            bounds=BATCH_BUCKETS,
        )  # fmt: skip

    def observer(self, op: str) -> Callable[[int, float], None]:
        """Return what is told the number of calls and the seconds of each round trip of a pipe."""
        labels = (op,)

        def observe(count: int, took: float) -> None:
            self._calls.observe(labels, count)
            self._seconds.observe(labels, took)

        return observe


class ConfigMetrics:
    """Which configuration a process works by."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._generation = Gauge(
            "postroom_config_generation", "1 at the start, and 1 more with each reload.", registry=registry
        )
        self._loaded_at = Gauge(
            "postroom_config_reload_timestamp_seconds", "When the configuration was loaded, in Unix time.",
            registry=registry,
        )  # fmt: skip
        self._info = Gauge(
            "postroom_config_info", "Hash of the configuration file's text.", ("hash",), registry=registry
        )
        self._expiry = Gauge(
            "postroom_token_expiry_timestamp_seconds", "When a caller's token expires, in Unix time.",
            ("caller", "token_id"), registry=registry,
        )  # fmt: skip
        self.invalid = Counter(
            "postroom_config_invalid", "Changes of the configuration refused as faulty.", registry=registry
        )

    def show(self, generation: int, digest: str, loaded_at: float, config: Config) -> None:
        """Set the gauges."""
        self._expiry.clear()
        for name, caller in config.callers.items():
            for token in caller.tokens:
                if token.expires and (expires := read_time(token.expires)):
                    self._expiry.labels(name, token.id).set(expires.timestamp())
        self._generation.set(generation)
        self._loaded_at.set(loaded_at)
        self._info.clear()
        self._info.labels(digest).set(1)


class EdgeMetrics:
    """What the API process counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        _build_info(registry)
        self._count_requests(registry)
        self._count_messages(registry)
        self.redis_up = _redis_up(registry)
        self.pipes = PipeMetrics(registry)
        self.shared = SharedMetrics(registry)
        self.config = ConfigMetrics(registry)

    def apply(self, change: Change) -> None:
        """Drop every series of the agents that are configured no longer."""
        for agent in change.removed:
            _forget(agent, self.accepted, self.cancelled, self.finished, self.storm_braked)

    def _count_requests(self, registry: CollectorRegistry) -> None:
        self.requests = Sums(
            "postroom_http_requests", "Requests by route template.", ("route", "method", "status"), registry
        )
        self.request_seconds = Spread(
            "postroom_http_request_duration_seconds", "Time to answer.", ("route", "method"), registry,
            bounds=HTTP_BUCKETS,
        )  # fmt: skip
        self.in_flight = Gauge("postroom_http_in_flight", "Requests being answered.", registry=registry)
        self.auth_failures = Counter(
            "postroom_auth_failures", "Requests without a valid token.", ("reason",), registry=registry
        )

    def _count_messages(self, registry: CollectorRegistry) -> None:
        self.accepted = Sums(
            "postroom_messages_accepted", "Messages recorded.", ("caller", "agent", "priority"), registry
        )
        self.replays = Counter(
            "postroom_idempotent_replays", "Requests whose ref was known.", ("caller", "kind"),
            registry=registry,
        )  # fmt: skip
        self.files = Counter(
            "postroom_files", "Uploads to the file cache.", ("caller", "kind"), registry=registry
        )
        self.rejected = Counter(
            "postroom_messages_rejected", "Send requests refused, by problem code.", ("caller", "code"),
            registry=registry,
        )  # fmt: skip
        self.cancelled = Counter(
            "postroom_messages_cancelled", "Messages called back by their caller.", ("caller", "agent"),
            registry=registry,
        )  # fmt: skip
        self.finished = _finished(registry)
        self.storm_braked = Counter(
            "postroom_storm_braked", "Messages held by the storm brake.", ("agent",), registry=registry
        )


class CarrierMetrics:
    """What a worker process counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        _build_info(registry)
        self._count_mail(registry)
        self._count_ways(registry)
        self._count_work(registry)
        self.redis_up = _redis_up(registry)
        self.pipes = PipeMetrics(registry)
        self.shared = SharedMetrics(registry)
        self.config = ConfigMetrics(registry)

    def _count_mail(self, registry: CollectorRegistry) -> None:
        """Attempts and ends. A histogram has no agent: a thousand of them would have a hundred thousand series."""
        self.attempts = Sums(
            "postroom_attempts", "Attempts by the worst outcome among their recipients.",
            ("agent", "channel", "outcome", "reply_class"), registry,
        )  # fmt: skip
        self.attempt_seconds = Spread(
            "postroom_attempt_duration_seconds", "Time of an attempt, by kind of channel.", ("kind",), registry,
            bounds=ATTEMPT_BUCKETS,
        )  # fmt: skip
        self.busy_seconds = Sums(
            "postroom_channel_busy_seconds", "Time of all attempts over a channel, summed up.",
            ("agent", "channel"), registry,
        )  # fmt: skip
        self.finished = _finished(registry)
        self.latency = Spread(
            "postroom_message_latency_seconds", "From accepted to sent.", ("retry_profile", "priority"), registry,
            bounds=LATENCY_BUCKETS,
        )  # fmt: skip
        self.sent_age = Sums(
            "postroom_sent_age_seconds", "From accepted to sent, summed up over the sent messages of an agent.",
            ("agent",), registry,
        )  # fmt: skip
        self.ambiguous = Counter(
            "postroom_ambiguous_outcomes", "Attempts whose fate is unknown.", ("agent",), registry=registry
        )
        self.lapsed = Counter(
            "postroom_lease_expired", "Messages whose owner did not come back.", ("agent", "phase"),
            registry=registry,
        )  # fmt: skip
        self.fence_lost = Counter(
            "postroom_fence_rejections", "Steps refused for want of a current fence.", ("step",),
            registry=registry,
        )  # fmt: skip
        self.render_failures = Counter(
            "postroom_render_failures", "Accepted messages that could not be rendered or composed.",
            ("template", "reason"), registry=registry,
        )  # fmt: skip

    def forget(self, agent: str) -> None:
        """Drop every series of an agent that is no longer configured."""
        _forget(
            agent, self.attempts, self.finished, self.ambiguous, self.lapsed, self.channel_up, self.channel_faults,
            self.channel_switches, self.paced, self.busy_seconds, self.sent_age,
        )  # fmt: skip

    def _count_ways(self, registry: CollectorRegistry) -> None:
        """Channels, and what holds mail up."""
        self.channel_up = Gauge(
            "postroom_channel_up", "1 after a connection was made, 0 after a fault.", ("agent", "channel"),
            registry=registry,
        )  # fmt: skip
        self.channel_faults = Counter(
            "postroom_channel_faults", "Faults of channels.", ("agent", "channel", "cause"), registry=registry
        )
        self.channel_switches = Counter(
            "postroom_channel_switches", "Times that mail went on over a later channel, because one stood still.",
            ("agent", "instead_of", "channel"), registry=registry,
        )  # fmt: skip
        self.paced = Counter(
            "postroom_paced_claims", "Looks at an agent's queue that its rate let nothing through at.",
            ("agent",), registry=registry,
        )  # fmt: skip

    def _count_work(self, registry: CollectorRegistry) -> None:
        """Rounds, lanes and the sweep of this process."""
        self.swept = Counter(
            "postroom_sweeper_rearmed", "Agents rung for by the sweep; about 0 in quiet weather.",
            registry=registry,
        )  # fmt: skip
        self.rounds = Counter("postroom_rounds", "Rounds begun by this process.", registry=registry)
        self.rounds_running = Gauge(
            "postroom_rounds_running", "Agents this process has a round for.", registry=registry
        )
        self.lanes = Gauge("postroom_lanes", "Open lanes of this process.", registry=registry)
        self.lanes_limit = Gauge(
            "postroom_lanes_limit", "`worker.max_lanes` of this process.", registry=registry
        )
        self.redis_errors = Counter(
            "postroom_redis_errors", "Failed calls of the ledger.", ("kind",), registry=registry
        )


def _forget(agent: str, *metrics: Counter | Gauge | Sums) -> None:
    for metric in metrics:
        if isinstance(metric, Sums):
            metric.forget(agent)
        else:
            metric.remove_by_labels({"agent": agent})


def _finished(registry: CollectorRegistry) -> Sums:
    """Workers end messages, and so do callers and operators over the API."""
    labels = ("agent", "priority", "state")
    return Sums("postroom_messages_finished", "Messages that ended.", labels, registry)


def _redis_up(registry: CollectorRegistry) -> Gauge:
    return Gauge("postroom_redis_up", "1 while the ledger answers this process, else 0.", registry=registry)


def _build_info(registry: CollectorRegistry) -> None:
    build = Gauge("postroom_build_info", "Version of this process.", ("version",), registry=registry)
    build.labels(__version__).set(1)
