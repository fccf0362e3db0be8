"""A stack for the tests of a whole module: one set of processes, and for each test an agent with a receiver of its own."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.faults.mail import Receiver
from tests.smtpd import Script
from tests.stack import QUICK, Stack, agent_toml, channel, sample


class House:
    """One agent of a street: its receiver, its mail, and what is logged of it."""

    def __init__(self, stack: Stack, name: str, receiver: Receiver, second: Receiver | None) -> None:
        self.stack, self.name, self.receiver = stack, name, receiver
        self._second = second

    @property
    def second(self) -> Receiver:
        """The receiver of its channel `second`."""
        assert self._second is not None, f"{self.name} has one channel"
        return self._second

    def sample(self, ref: str, **changes: Any) -> dict[str, Any]:
        """Return a request of this agent that is right, but for the changes."""
        return sample(ref, agent=self.name, **changes)

    async def accept(self, ref: str, **changes: Any) -> str:
        """POST a message of this agent; return its id."""
        return await self.stack.accept(self.sample(ref, **changes))

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the workers' log lines of one event about this agent."""
        workers = [name for name in self.stack.processes if name != "api"]
        lines = [line for name in workers for line in self.stack.logs(name)]
        return [line for line in lines if line["event"] == event and line.get("agent") == self.name]

    async def until_reason(self, message_id: str, code: str) -> dict[str, Any]:
        """Wait until a message waits for that reason."""
        found: dict[str, Any] = {}

        async def is_so() -> bool:
            nonlocal found
            found = await self.stack.get(message_id)
            return (found.get("reason") or {}).get("code") == code

        await self.stack.until(is_so, code)
        return found


class Street:
    """The houses of one stack, by the name of their agents."""

    def __init__(
        self, stack: Stack, receivers: Mapping[str, Receiver], seconds: Mapping[str, Receiver]
    ) -> None:
        self.stack, self._receivers, self._seconds = stack, receivers, seconds

    def house(self, name: str, script: Script | None = None) -> House:
        """Return an agent that nobody has had mail for yet, with its receiver's script."""
        receiver = self._receivers[name]
        assert not receiver.connections, f"{name} has had mail"
        receiver.script = script or {}
        return House(self.stack, name, receiver, self._seconds.get(name))


@asynccontextmanager
async def open_street(
    houses: Mapping[str, str], *, two_channels: Collection[str] = (), more: str = ""
) -> AsyncIterator[Street]:
    """Open a stack of two workers with an agent for each house, by name and with its options.

    Its channel is `relay`; those of `two_channels` have another one, `second`.
    """
    async with AsyncExitStack() as opened:
        folder = Path(opened.enter_context(TemporaryDirectory(prefix="pr")))
        receivers = {name: await opened.enter_async_context(Receiver()) for name in houses}
        seconds = {name: await opened.enter_async_context(Receiver()) for name in two_channels}
        agents = {}
        for name, options in houses.items():
            channels = [channel(name, receivers[name].port)]
            if name in seconds:
                channels.append(channel(name, seconds[name].port, "second"))
            agents[name] = agent_toml(name, *channels, options=options)
        stack = Stack(folder, 1, worker=QUICK, agents=agents, more=more)
        await opened.enter_async_context(stack)
        await asyncio.gather(stack.start_api(), stack.start_workers("w1", "w2"))
        yield Street(stack, receivers, seconds)
