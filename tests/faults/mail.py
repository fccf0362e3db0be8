"""What the fault tests share: a receiver that counts at its own commit point, and the account after a load."""

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import aiohttp

from tests.smtpd import Received, Script, Smtpd
from tests.stack import PATIENCE, Stack, sample

LONG = os.environ.get("POSTROOM_LONG") == "1"
SECONDS = 900 if LONG else 60  # for one test, `pytest.mark.timeout`
# A lease that a busy machine does not miss, and still short enough to wait for.
BRISK = 'lease = "2s"\nlinger = "500ms"\nsweep = "200ms"\nround = "3s"'
FAR_AHEAD_MS = 600_000  # a round's entry may outlive a killed worker for so long, not for ever


def scaled(short: Any, long: Any) -> Any:
    """Return one of them: `POSTROOM_LONG=1` chooses the latter."""
    return long if LONG else short


class _Arrivals(list[Received]):
    """Mails, with the time of each; `then` is called at the commit point, before the server says yes."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []
        self.then: Callable[[], None] = lambda: None

    def append(self, mail: Received) -> None:
        self.times.append(time.time())
        super().append(mail)
        self.then()


class Receiver(Smtpd):
    """A scripted server that knows when each mail arrived, and how many sessions were open at once."""

    def __init__(self, script: Script | None = None, **options: Any) -> None:
        super().__init__(script, **options)
        self.mails = self.arrivals = _Arrivals()
        self.peak = 0

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peak = max(self.peak, self.open + 1)
        await super()._talk(reader, writer)

    def copies(self) -> Counter[str]:
        """Return how often each message arrived, by its X-Postroom-Id."""
        return Counter(map(_id_of, self.mails))

    def copies_by_recipient(self) -> Counter[tuple[str, str]]:
        """Return how often each message arrived for each recipient."""
        return Counter((_id_of(mail), address) for mail in self.mails for address in mail.recipients)

    def order(self) -> list[str]:
        """Return the messages in the order of their arrival."""
        return [_id_of(mail) for mail in self.mails]

    def recipients_of(self, message_id: str) -> list[list[str]]:
        """Return the envelope's recipients of each copy of a message."""
        return [mail.recipients for mail in self.mails if _id_of(mail) == message_id]

    def windows(self, seconds: float) -> list[int]:
        """Return how many mails arrived within each window of that length that ends with one of them."""
        times, first, found = self.arrivals.times, 0, []
        for last, moment in enumerate(times):
            while moment - times[first] >= seconds:
                first += 1
            found.append(last - first + 1)
        return found

    async def until_mails(self, count: int, seconds: float = PATIENCE) -> None:
        """Wait until so many copies have arrived."""
        await until(lambda: len(self.mails) >= count, f"{count} mails arrived", seconds)


def _id_of(mail: Received) -> str:
    found = re.search(rb"^X-Postroom-Id: *(\S+)", mail.data, re.MULTILINE)
    assert found is not None
    return found[1].decode()


async def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def meanwhile(step: Callable[[], Awaitable[None]], every: float) -> AsyncIterator[None]:
    """Do something again and again while the block runs."""
    over = False

    async def go_on() -> None:
        while not over:
            await step()
            await asyncio.sleep(every)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        over = True
        await task


class Load:
    """Callers that go on posting until told to stop, as good callers do: the same again on 503."""

    def __init__(self, stack: Stack, pause: float, name: str = "c") -> None:
        self.accepted: dict[str, float] = {}
        self._stack, self._pause, self._name = stack, pause, name
        self._over = False
        self._tasks = [asyncio.create_task(self._call(n)) for n in range(8)]

    async def stop(self) -> list[str]:
        """Stop, after what is being posted; return the ids."""
        self._over = True
        await asyncio.gather(*self._tasks)
        return list(self.accepted)

    async def _call(self, caller: int) -> None:
        number = 0
        while not self._over:
            number += 1
            message_id = await self._stack.accept(sample(f"{self._name}-{caller}-{number}"))
            self.accepted[message_id] = time.time()
            await asyncio.sleep(self._pause)


def moment(text: str) -> float:
    """Return a time of the API as Unix time."""
    return datetime.fromisoformat(text).timestamp()


def waited(message: dict[str, Any]) -> float:
    """Return the seconds from accepted to its end."""
    return moment(message["events"][-1]["at"]) - moment(message["accepted_at"])


def ambiguous(message: dict[str, Any]) -> int:
    """Return how many outcomes of a message nobody knows."""
    return sum(attempt["outcome"] == "ambiguous" for attempt in message["attempts"])


async def assert_delivered(
    stack: Stack, receiver: Receiver, ids: Iterable[str], seconds: float = PATIENCE
) -> dict[str, dict[str, Any]]:
    """Hold a load to the promises: nothing lost, copies bounded by ambiguous outcomes, no process in trouble."""
    ids = list(ids)
    messages = await stack.until_all_finished(ids, seconds)
    copies = receiver.copies()
    states = Counter(message["state"] for message in messages.values())
    # A second ambiguous outcome ends a message as unconfirmed; everything else was sent.
    unconfirmed = [i for i in ids if messages[i]["state"] == "unconfirmed" and ambiguous(messages[i]) > 1]
    assert len(ids) == states["sent"] + len(unconfirmed), states
    assert [] == [i for i in ids if messages[i]["state"] == "sent" and not copies[i]]
    excess = {i: (copies[i] - 1, ambiguous(m)) for i, m in messages.items()}
    assert {} == {i: pair for i, pair in excess.items() if pair[0] > pair[1]}
    mishaps = stack.mishaps()
    assert [] == mishaps, mishaps
    assert [] == stack.exited()
    extra = sum(max(0, pair[0]) for pair in excess.values())
    marks = sum(pair[1] for pair in excess.values())
    print(f"{len(ids)} messages: {dict(states)}, {extra} duplicates, {marks} ambiguous outcomes")  # noqa: T201
    return messages


async def assert_at_rest(
    stack: Stack, receiver: Receiver | None = None, *, killed: bool = False, renewing: float = 0.4
) -> None:
    """Hold an idle system to leaving nothing behind: lanes, queues, connections, rounds, leases renewed for ever.

    `killed`: a worker was killed, or Redis was away when a round ended, so that arq could not clear its entry
    and it waits for its end. `renewing`: leases are renewed
    at least so often, in seconds.
    """
    left: dict[str, object] = {}

    async def at_rest() -> bool:
        left.clear()
        names = [key.decode() async for key in stack.ledger.scan_iter("pr:{*", count=1000)]
        left["keys"] = [name for name in names if re.match(r"pr:\{p\d\d\}:(lanes|q):", name)]
        left["rounds"] = await _rounds_left(stack, killed=killed)
        left["lanes"] = [
            name
            for name in stack.worker_metrics
            if name in stack.processes
            and (await stack.metrics(stack.worker_metrics[name]))["postroom_lanes"] != 0
        ]
        left["sessions"] = receiver.open if receiver is not None else 0
        return not any(left.values())

    try:
        await stack.until(at_rest, "the system is at rest", 15)
    except AssertionError as late:
        raise AssertionError(f"left behind: {left}\n{late}") from None

    async def nobody_works() -> bool:
        calls = await stack.script_calls(renewing)
        return not calls["renew"] + calls["claim"] + calls["finish"]

    # A round that was rung for twice may look once more; after that nobody claims, renews or finishes anything.
    await stack.until(nobody_works, "nobody works any more", 10)


async def _rounds_left(stack: Stack, *, killed: bool) -> int:
    if not killed:
        return int(await stack.ledger.zcard("pr:rounds"))
    return int(await stack.ledger.zcount("pr:rounds", int(time.time() * 1000) + FAR_AHEAD_MS, "+inf"))


async def assert_unavailable(stack: Stack, name: str, seconds: float) -> None:
    """Ask again and again for so long."""
    deadline = time.monotonic() + seconds
    number = 0
    while time.monotonic() < deadline:
        number += 1
        began = time.monotonic()
        async with stack.session.get(f"{stack.url}/livez") as response:
            assert 200 == response.status
        assert time.monotonic() - began < 1
        status, problem, headers = await stack.post(
            sample(f"{name}-away-{number}"), timeout=aiohttp.ClientTimeout(total=10)
        )
        assert (503, True) == (status, int(headers["retry-after"]) > 0)
        assert problem["code"] in ("unavailable", "acceptance_unconfirmed")
        await asyncio.sleep(0.1)
