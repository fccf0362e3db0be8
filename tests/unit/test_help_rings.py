"""How often rounds that want more lanes than their worker has ask other workers for help."""

import pytest

from workers.carrier import HELP_RINGS, HELP_SECONDS, Carrier


@pytest.mark.parametrize("rounds", [1, 20, 39, 40, 41, 200, 1_000, 20_000])
def test_all_rounds_together_ring_so_often_at_most(rounds: int):
    """Few ring once a second each; many share what there is, since a ring costs as much as two messages."""
    carrier = Carrier.__new__(Carrier)
    carrier._rounds = dict.fromkeys(map(str, range(rounds)))
    seconds = carrier.help_seconds()
    assert rounds / seconds <= HELP_RINGS
    assert seconds >= HELP_SECONDS
    assert seconds == HELP_SECONDS or rounds / seconds == HELP_RINGS
