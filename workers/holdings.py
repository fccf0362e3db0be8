"""What this process holds: lanes and claimed messages, to be renewed together and given back at the end."""

from collections import defaultdict


class Holdings:
    """Messages by agent with their fences, and lanes by agent."""

    def __init__(self) -> None:
        self._messages: dict[str, dict[str, int]] = defaultdict(dict)
        self._lanes: dict[str, set[str]] = defaultdict(set)
        self._lost: set[str] = set()

    def enter(self, agent: str, lane: str) -> None:
        """A lane begins."""
        self._lanes[agent].add(lane)

    def leave(self, agent: str, lane: str) -> None:
        """A lane has ended."""
        self._lanes[agent].discard(lane)

    def take(self, agent: str, message_id: str, fence: int) -> None:
        """A message was claimed."""
        self._messages[agent][message_id] = fence

    def drop(self, agent: str, message_id: str) -> None:
        """A message is finished, released, or somebody else's."""
        self._messages[agent].pop(message_id, None)
        self._lost.discard(message_id)

    def holds(self, agent: str, message_id: str) -> bool:
        """True where the message is still in this process's hands."""
        return message_id in self._messages[agent]

    def lose(self, agent: str, messages: list[tuple[str, int]]) -> None:
        """Renewing showed that these, under these fences, are somebody else's by now."""
        held = self._messages[agent]
        self._lost.update(i for i, fence in messages if held.get(i) == fence)

    def is_lost(self, message_id: str) -> bool:
        """True where the message was found to be somebody else's."""
        return message_id in self._lost

    def agents(self) -> list[str]:
        """Return the agents anything is held of."""
        return [a for a in {*self._messages, *self._lanes} if self._messages[a] or self._lanes[a]]

    def of(self, agent: str) -> tuple[list[str], list[tuple[str, int]]]:
        """Return an agent's lanes, and its messages with their fences."""
        return sorted(self._lanes[agent]), list(self._messages[agent].items())
