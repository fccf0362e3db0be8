"""Where the time of a message went, for the line at its end."""

from msgspec import Struct


class Stages(Struct):
    """Seconds of one attempt's stages. What they do not cover, the message waited."""

    pacing: float = 0.0  # of its waiting, for the agent's rate
    connect: float = 0.0  # of the lane, where this message was the first over a new connection
    render: float = 0.0
    compose: float = 0.0
    submit: float = 0.0
    finish: float = 0.0  # until the outcome was in the ledger

    def to_ms(self, *, accept_us: int, age_ms: int) -> dict[str, float]:
        """Return milliseconds by stage. Their sum is the time in the API, the message's age, and the finish.

        `queue` is what is left: waiting, and earlier attempts with the waits between them.
        """
        known = {name: round(getattr(self, name) * 1000, 1) for name in ("render", "compose", "submit")}
        waited = max(0.0, age_ms - sum(known.values()))
        connect = min(round(self.connect * 1000, 1), waited)
        pacing = min(round(self.pacing * 1000, 1), waited - connect)
        return {
            "accept_ms": round(accept_us / 1000, 1),
            "queue_ms": round(waited - connect - pacing, 1),
            "pacing_ms": round(pacing, 1),
            "connect_ms": round(connect, 1),
            **{f"{name}_ms": value for name, value in known.items()},
            "finish_ms": round(self.finish * 1000, 1),
        }
