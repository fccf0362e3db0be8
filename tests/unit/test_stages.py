"""The stages of an attempt, as the line at its end tells them."""

from hypothesis import given
from hypothesis import strategies as st

from workers.stages import Stages

SECONDS = st.floats(min_value=0, max_value=100)


@given(st.tuples(*[SECONDS] * 6), st.integers(0, 10**9), st.integers(0, 10**6))
def test_the_stages_add_up_to_the_message_age(seconds, accept_us, age_ms):
    """All but accepting and the finish lie in the age; what the attempt itself took is told whole, even beyond it."""
    ms = Stages(*seconds).to_ms(accept_us=accept_us, age_ms=age_ms)
    hundredths = {name: round(value * 100) for name, value in ms.items()}
    assert all(value >= 0 for value in ms.values())
    within = sum(value for name, value in hundredths.items() if name not in ("accept_ms", "finish_ms"))
    attempt = hundredths["render_ms"] + hundredths["compose_ms"] + hundredths["submit_ms"]
    assert max(age_ms * 100, attempt) == within
    for name, given_ in zip(("render", "compose", "submit", "finish"), seconds[2:], strict=True):
        assert abs(ms[f"{name}_ms"] - given_ * 1000) < 0.0051
    assert abs(ms["accept_ms"] - accept_us / 1000) < 0.0051


def test_waiting_for_the_rate_and_connecting_are_told_apart():
    """What is left of the age after both is the queue."""
    ms = Stages(0.3, 0.02, 0.001, 0.002, 0.05).to_ms(accept_us=1200, age_ms=500)
    assert (300.0, 20.0, 127.0) == (ms["pacing_ms"], ms["connect_ms"], ms["queue_ms"])
    assert 1.2 == ms["accept_ms"]


def test_a_wait_for_the_rate_is_never_longer_than_the_message_waited():
    """The rate held the agent's mail up for a minute, this message came at its end."""
    ms = Stages(60.0, 0.02, 0.001, 0.002, 0.05).to_ms(accept_us=0, age_ms=80)
    assert (7.0, 20.0, 0.0) == (ms["pacing_ms"], ms["connect_ms"], ms["queue_ms"])
