"""Turns: who of all lanes of a process begins its next attempt, so that no agent's many lanes hold up another's one.

An event loop runs whatever is ready in one pass, and nothing that becomes ready meanwhile. Twenty lanes of one busy
agent would make every pass as long as twenty attempts, and a quiet agent's mail needs a dozen passes from the bell to
its last reply.
"""

import asyncio
from collections import deque

MOST_IN_A_PASS = 1


class Turns:
    """Lets a few attempts begin in each pass of the event loop, one agent after the other."""

    def __init__(self) -> None:
        self._begun = 0  # in this pass
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # the agent whose turn is next comes first
        self._counting = False

    async def take(self, agent: str) -> None:
        """Return when it is this agent's turn; at once where few want one."""
        loop = asyncio.get_running_loop()
        if not self._counting:
            self._counting = True
            loop.call_soon(self._next_pass, loop)
        if self._begun < MOST_IN_A_PASS:
            self._begun += 1
            return
        turn = loop.create_future()
        self._waiting.setdefault(agent, deque()).append(turn)
        await turn

    def _next_pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._begun = 0
        while self._waiting and self._begun < MOST_IN_A_PASS:
            agent, turns = next(iter(self._waiting.items()))
            del self._waiting[agent]
            turn = turns.popleft()
            if turns:
                self._waiting[agent] = turns  # behind the others
            if not turn.done():
                turn.set_result(None)
                self._begun += 1
        self._counting = bool(self._begun)
        if self._counting:
            loop.call_soon(self._next_pass, loop)
