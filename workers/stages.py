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
        render, compose, submit = _ms(self.render), _ms(self.compose), _ms(self.submit)
        waited = max(0.0, age_ms - render - compose - submit)
        connect = min(_ms(self.connect), waited)
        pacing = min(_ms(self.pacing), waited - connect)
        return {
            "accept_ms": round(accept_us / 1000, 1),
            "queue_ms": round(waited - connect - pacing, 1),
            "pacing_ms": round(pacing, 1),
            "connect_ms": round(connect, 1),
            "render_ms": render,
            "compose_ms": compose,
            "submit_ms": submit,
            "finish_ms": _ms(self.finish),
        }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
