"""Turns: who of all lanes of a process begins its next attempt, so that no agent's many lanes hold up another's one.

An event loop runs whatever is ready in one pass, and nothing that becomes ready meanwhile. Twenty lanes of one busy
agent would make every pass as long as twenty attempts, and a quiet agent's mail needs a dozen passes from the bell to
its last reply.
"""

import asyncio
from collections import deque


class Turns:
    """Lets one attempt begin in each pass of the event loop, one agent after the other."""

    def __init__(self) -> None:
        self._begun = False  # one has, in this pass
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # the agent whose turn is next comes first

    async def take(self, agent: str) -> None:
        """Return when it is this agent's turn; at once where nobody else wants one."""
        loop = asyncio.get_running_loop()
        if not self._begun:
            self._begun = True
            loop.call_soon(self._next_pass, loop)
            return
        turn = loop.create_future()
        self._waiting.setdefault(agent, deque()).append(turn)
        await turn

    def _next_pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._begun = self._wake_next()
        if self._begun:
            loop.call_soon(self._next_pass, loop)

    def _wake_next(self) -> bool:
        """Wake the one whose turn it is; False where nobody waits."""
        while self._waiting:
            agent, turns = next(iter(self._waiting.items()))
            del self._waiting[agent]
            turn = turns.popleft()
            if turns:
                self._waiting[agent] = turns  # behind the others
            if not turn.done():
                turn.set_result(None)
                return True
        return False
