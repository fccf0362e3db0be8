"""When a deferred message is due again: pure functions of the profile, the attempt and a drawn number."""

from collections.abc import Sequence

# Seconds before the second, third, … attempt; the last one repeats. Most 4xx replies are greylisting that
# clears within minutes, so the first retries come early.
PROFILES: dict[str, Sequence[float]] = {
    "interactive": (5, 15, 45, 120, 300),
    "standard": (30, 120, 300, 900, 1800, 3600),
}
LEAST_SHARE = 0.5  # jitter: between half of the delay and all of it, so that a herd spreads
LONGEST_RETRY_AFTER = 24 * 3600.0


def next_delay(profile: str, attempts: int, *, draw: float, retry_after: float | None = None) -> float:
    """Return the seconds until the next attempt.

    `attempts` counts the finished ones (at least 1), `draw` is uniform in [0, 1). What the channel asked for
    (`retry_after`) is a floor, within reason.
    """
    delays = PROFILES[profile]
    base = delays[min(max(attempts, 1), len(delays)) - 1]
    delay = base * (LEAST_SHARE + (1 - LEAST_SHARE) * draw)
    return max(delay, min(retry_after or 0.0, LONGEST_RETRY_AFTER))
