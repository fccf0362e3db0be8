"""Everything at once, at random: what no single fault shows."""

from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, scaled
from tests.faults.soak import soak
from tests.faults.strikes import Striker, strikes


def test_the_same_seed_is_the_same_sequence_of_strikes():
    """A seed draws the same strikes again, every kind of them, and another seed others."""
    kinds = sum(name.startswith("do_") for name in vars(Striker))
    first, again, other = ([next(drawn) for _ in range(kinds)] for drawn in map(strikes, (7, 7, 8)))
    assert first == again != other
    assert kinds == len({strike.name for strike in first})


@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize("seed", scaled([26], range(3)))
async def test_whatever_happens_every_promise_holds(folder: Path, seed: int):
    """Processes killed, frozen and replaced, connections spoiled, storms: nothing lost, every copy accounted for."""
    assert [] == await soak(folder, seed, scaled(6, 60), print)
