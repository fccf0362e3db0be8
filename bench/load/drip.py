"""POST one at a time, at set moments: `python -m bench.load.drip '{"port": 8080, "agents": ["orders"], …}'`.

Each agent has a connection of its own and its share of the moments. A message's clock starts at its moment, also where
the answer to the one before was late: what a caller waits for counts, not what a load generator gets round to.
"""

import asyncio
import json
import random
import sys
import time
from typing import Any

import msgspec
import uvloop

from bench.bodies import Template, marker


class Order(msgspec.Struct, kw_only=True):
    """To each agent a message every `interval` seconds, `each` times, beginning at a random moment of the first one."""

    port: int
    body: dict[str, Any]
    agents: list[str]
    each: int
    interval: float
    first: int = 0
    spread: bool = True  # False: agents in turn, one after the other, an interval apart
    seed: int = 7


class Drip:
    """Posts, and remembers the moments."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.posted: dict[str, float] = {}
        self.answered: list[float] = []
        self.bad: list[str] = []
        self._draw = random.Random(order.seed)
        self._next = order.first

    async def run(self) -> None:
        """Post to all agents."""
        order, now = self._order, time.monotonic() + 0.2
        if order.spread:
            starts = [now + self._draw.uniform(0, order.interval) for _ in order.agents]
        else:
            starts = [now + number * order.interval for number in range(len(order.agents))]
        await asyncio.gather(*(self._post_to(a, at) for a, at in zip(order.agents, starts, strict=True)))

    async def _post_to(self, agent: str, moment: float) -> None:
        order = self._order
        template = Template(order.port, {**order.body, "agent": agent})
        reader, writer = await asyncio.open_connection("127.0.0.1", order.port)
        for _ in range(order.each):
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            number, self._next = self._next, self._next + 1
            self.posted[marker(number)] = moment = max(moment, time.monotonic() - order.interval)
            writer.write(template.write(number))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
            self.answered.append(time.monotonic() - moment)
            if not head.startswith(b"HTTP/1.1 20"):
                self.bad.append(head.decode("latin-1"))
            moment += order.interval
        writer.close()


async def run(order: Order) -> dict[str, Any]:
    """Post all and return when each was posted."""
    drip = Drip(order)
    await drip.run()
    return {"posted": drip.posted, "answered": drip.answered, "bad": drip.bad[:3], "bad_count": len(drip.bad)}


def main() -> None:
    """Do what the first word says, as JSON; print what came of it, as JSON."""
    print(json.dumps(uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Order)))), flush=True)


if __name__ == "__main__":
    main()
