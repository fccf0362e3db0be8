"""The bell: accepts ring it, over Redis's pub/sub, for agents whose lanes are awake.

It only makes things quick. A ring that is lost costs a renewal's interval, never a message.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from postroom.ledger.clients import end_tasks
from postroom.ledger.keys import bell_channel

PAUSE_SECONDS = 0.2
SUBSCRIBE_SECONDS = 0.5
ALWAYS = ""  # a channel nobody rings, so that the connection has something to listen to


class Bell:
    """Listens for this process's awake agents over one connection."""

    def __init__(self, client: Redis) -> None:
        self._pubsub: PubSub = client.pubsub(ignore_subscribe_messages=False)
        self._listeners: dict[bytes, Callable[[str], None]] = {}

    async def listen(self) -> None:
        """Hear rings until cancelled; a lost connection is made again, with all its subscriptions."""
        while True:
            try:
                await self._pubsub.subscribe(bell_channel(ALWAYS))
                # What rang while the connection was lost was not heard, so everybody looks.
                for listener in list(self._listeners.values()):
                    listener("s")
                while True:
                    message = await self._pubsub.get_message(timeout=None)
                    if message is not None:
                        self._hear(message)
            except (RedisError, OSError):
                await asyncio.sleep(PAUSE_SECONDS)

    @asynccontextmanager
    async def heard_by(self, agent: str, listener: Callable[[str], None]) -> AsyncIterator[None]:
        """Let `listener` be called for each ring for the agent while the block runs.

        It is told what the ring says: the priority of the mail that is due (`h`, `n`, `b`), or `x` where something
        stands over the agent that did not before. The block does not wait until the bell can be heard; once it can,
        `s` is told, for a ring may have been missed.
        """
        channel = bell_channel(agent).encode()
        self._listeners[channel] = listener
        subscribing = asyncio.create_task(self._subscribe(channel))
        try:
            yield
        finally:
            del self._listeners[channel]
            await end_tasks(subscribing)
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(SUBSCRIBE_SECONDS):
                    await self._pubsub.unsubscribe(channel)

    async def _subscribe(self, channel: bytes) -> None:
        """Without an answer the round works all the same: renewals find mail whose ring was not heard."""
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(SUBSCRIBE_SECONDS):
                await self._pubsub.subscribe(channel)

    async def aclose(self) -> None:
        """Close the connection."""
        with suppress(RedisError, OSError):
            await self._pubsub.aclose()  # type: ignore[no-untyped-call]

    def _hear(self, message: dict[str, object]) -> None:
        channel = message["channel"]
        assert isinstance(channel, bytes)
        listener = self._listeners.get(channel)
        if listener is None:
            return
        if message["type"] == "subscribe":
            listener("s")
        elif message["type"] == "message":
            said = message["data"]
            assert isinstance(said, bytes)
            listener(said.decode())
