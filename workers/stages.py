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
        # In whole hundredths of a millisecond: their sum is exact, and rounding a float costs as much as all of this.
        render, compose, submit = (
            _hundredths(self.render),
            _hundredths(self.compose),
            _hundredths(self.submit),
        )
        waited = max(0, 100 * age_ms - render - compose - submit)
        connect = min(_hundredths(self.connect), waited)
        pacing = min(_hundredths(self.pacing), waited - connect)
        return {
            "accept_ms": (accept_us + 5) // 10 / 100,
            "queue_ms": (waited - connect - pacing) / 100,
            "pacing_ms": pacing / 100,
            "connect_ms": connect / 100,
            "render_ms": render / 100,
            "compose_ms": compose / 100,
            "submit_ms": submit / 100,
            "finish_ms": _hundredths(self.finish) / 100,
        }


def _hundredths(seconds: float) -> int:
    return int(seconds * 100_000 + 0.5)
