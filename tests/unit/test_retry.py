"""When a deferred message is due again."""

import pytest

from workers.retry import LONGEST_RETRY_AFTER, next_delay


@pytest.mark.parametrize(
    ("profile", "attempts", "shortest", "longest"),
    [
        ("standard", 1, 15, 30),
        ("standard", 2, 60, 120),
        ("standard", 3, 150, 300),
        ("standard", 4, 450, 900),
        ("standard", 5, 900, 1800),
        ("standard", 6, 1800, 3600),
        ("standard", 7, 1800, 3600),
        ("standard", 500, 1800, 3600),
        ("interactive", 1, 2.5, 5),
        ("interactive", 2, 7.5, 15),
        ("interactive", 3, 22.5, 45),
        ("interactive", 4, 60, 120),
        ("interactive", 5, 150, 300),
        ("interactive", 6, 150, 300),
    ],
)
def test_the_schedule(profile, attempts, shortest, longest):
    """Each attempt has its delay, of which jitter takes at most half, and the last delay repeats."""
    assert shortest == next_delay(profile, attempts, draw=0.0)
    assert longest == next_delay(profile, attempts, draw=1.0)
    assert (shortest + longest) / 2 == next_delay(profile, attempts, draw=0.5)


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [
        (None, 15),
        (0.0, 15),
        (14.9, 15),
        (15.1, 15.1),
        (600, 600),
        (LONGEST_RETRY_AFTER, 86_400),
        (LONGEST_RETRY_AFTER + 1, 86_400),
        (1e12, 86_400),
    ],
)
def test_what_the_channel_asked_for_is_a_floor_within_reason(retry_after, expected):
    """Retry-After makes the delay longer, never shorter, and never longer than a day."""
    assert expected == next_delay("standard", 1, draw=0.0, retry_after=retry_after)


@pytest.mark.parametrize("attempts", [0, -1])
def test_a_count_below_one_is_taken_for_the_first(attempts):
    """A first delay is answered for a message that has no finished attempt."""
    assert 30 == next_delay("standard", attempts, draw=1.0)
