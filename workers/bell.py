"""The bell: accepts ring it, over Redis's pub/sub, for agents whose lanes are awake.

It only makes things quick. A ring that is lost costs a poll of the round, never a message.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from postroom.ledger.keys import bell_channel

PAUSE_SECONDS = 0.2
SUBSCRIBE_SECONDS = 0.5  # a round begins without the bell rather than wait longer for it
ALWAYS = ""  # a channel nobody rings, so that the connection has something to listen to


class Bell:
    """Listens for this process's awake agents over one connection."""

    def __init__(self, client: Redis) -> None:
        self._pubsub: PubSub = client.pubsub(ignore_subscribe_messages=False)
        self._listeners: dict[bytes, Callable[[], None]] = {}
        self._confirmed: dict[bytes, asyncio.Event] = {}

    async def listen(self) -> None:
        """Hear rings until cancelled; a lost connection is made again, with all its subscriptions."""
        while True:
            try:
                await self._pubsub.subscribe(bell_channel(ALWAYS))
                while True:
                    message = await self._pubsub.get_message(timeout=None)
                    if message is not None:
                        self._hear(message)
            except (RedisError, OSError):
                await asyncio.sleep(PAUSE_SECONDS)

    @asynccontextmanager
    async def heard_by(self, agent: str, listener: Callable[[], None]) -> AsyncIterator[None]:
        """Let `listener` be called for each ring for the agent while the block runs."""
        channel = bell_channel(agent).encode()
        self._listeners[channel] = listener
        confirmed = self._confirmed[channel] = asyncio.Event()
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(SUBSCRIBE_SECONDS):
                await self._pubsub.subscribe(channel)
                await confirmed.wait()
        try:
            yield
        finally:
            del self._listeners[channel]
            self._confirmed.pop(channel, None)
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(SUBSCRIBE_SECONDS):
                    await self._pubsub.unsubscribe(channel)

    async def aclose(self) -> None:
        """Close the connection."""
        with suppress(RedisError, OSError):
            await self._pubsub.aclose()  # type: ignore[no-untyped-call]

    def _hear(self, message: dict[str, object]) -> None:
        channel = message["channel"]
        assert isinstance(channel, bytes)
        if message["type"] == "subscribe":
            if confirmed := self._confirmed.get(channel):
                confirmed.set()
        elif message["type"] == "message" and (listener := self._listeners.get(channel)):
            listener()
