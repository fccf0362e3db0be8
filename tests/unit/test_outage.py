"""What is told of an outage: each cause once, in a worker as in the API, and the end."""

import asyncio
from types import SimpleNamespace

import pytest
import structlog
from redis.exceptions import AuthenticationError, OutOfMemoryError
from structlog.testing import capture_logs

from postroom.ledger.errors import LedgerUnavailableError, LedgerUnconfirmedError
from postroom.ledger.refusals import STRANGER, UNANSWERED
from postroom.outage import Outage
from workers import worker
from workers.worker import WorkerProcess


def test_each_cause_is_told_once_and_the_end_once():
    """A call that broke off comes first and hides why; the password that is refused is told all the same."""
    with capture_logs() as lines:
        outage = Outage(structlog.get_logger())
        outage.over()
        for _ in range(2):
            for _ in range(3):
                outage.failed(LedgerUnconfirmedError(UNANSWERED))
                outage.failed(LedgerUnavailableError(STRANGER))
            outage.over()
            outage.over()
    told = [(line["event"], line.get("kind"), line.get("detail")) for line in lines]
    assert (
        2
        * [
            ("redis.unavailable", "unconfirmed", UNANSWERED),
            ("redis.unavailable", "unavailable", STRANGER),
            ("redis.recovered", None, None),
        ]
        == told
    )


@pytest.fixture
def process():
    """A worker process of which only the fetching of rounds works."""
    made = WorkerProcess(None, SimpleNamespace(current=None), None)
    with capture_logs() as made.lines:
        made._log = structlog.get_logger()
        yield made


ENDS = [OutOfMemoryError, OutOfMemoryError, AuthenticationError, OutOfMemoryError]


@pytest.mark.parametrize(("steady", "told"), [(60.0, [OutOfMemoryError, AuthenticationError]), (0.0, ENDS)])
async def test_an_arq_worker_that_ends_again_and_again_is_told_once(monkeypatch, process, steady, told):
    """For each kind of error; and again where one ran long enough to have seen the end of it."""
    errors = iter(ENDS)

    class Failing:
        def __init__(self, *_, **__):
            pass

        async def run(self):
            error = next(errors, None)
            if error is None:
                process._stopping.set()
                await asyncio.Event().wait()
            raise error

        def abandon(self):
            return []

        async def stop(self, _):
            pass

    monkeypatch.setattr(worker.rounds, "RoundsWorker", Failing)
    monkeypatch.setattr(worker, "RESTART_PAUSES", (0,))
    monkeypatch.setattr(worker, "STEADY_SECONDS", steady)
    carrier = SimpleNamespace(round_seconds=1, deliver=None, adopt=lambda _: None)
    await process._keep_fetching(carrier, None)
    assert [error.__name__ for error in told] == [line["error"] for line in process.lines]
