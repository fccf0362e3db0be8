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
    ahead: float = 0.0  # of its submission, while the next message was made: that is none of its own time

    def to_ms(self, *, accept_us: int, age_ms: int) -> dict[str, float]:
        """Return milliseconds by stage. Their sum is the time in the API, the message's age, and the finish.

        `queue` is what is left: waiting, and earlier attempts with the waits between them.
        """
        # In whole tenths of a millisecond: their sum is exact, and rounding a float costs as much as all of this.
        render, compose, submit = _tenths(self.render), _tenths(self.compose), _tenths(self.submit)
        waited = max(0, 10 * age_ms - render - compose - submit)
        connect = min(_tenths(self.connect), waited)
        pacing = min(_tenths(self.pacing), waited - connect)
        return {
            "accept_ms": (accept_us + 50) // 100 / 10,
            "queue_ms": (waited - connect - pacing) / 10,
            "pacing_ms": pacing / 10,
            "connect_ms": connect / 10,
            "render_ms": render / 10,
            "compose_ms": compose / 10,
            "submit_ms": submit / 10,
            "finish_ms": _tenths(self.finish) / 10,
        }


def _tenths(seconds: float) -> int:
    return int(seconds * 10_000 + 0.5)
