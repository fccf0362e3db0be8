"""What a reload changes."""

from collections.abc import Collection

import msgspec
from msgspec import Struct

from postroom.config.structs import Agent, ChannelConfig, Config

# What a process opens and starts once: a change of these waits for its restart.
FIXED_SECTIONS = ("environment", "redis", "retention", "files", "templates", "worker")


class Change(Struct, frozen=True):
    """An accepted reload: the configuration before and after it, and the agents that differ, by name.

    `files` are the ones named in both that hold something else now.
    """

    old: Config
    new: Config
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    files: frozenset[str] = frozenset()

    @property
    def touched(self) -> tuple[str, ...]:
        """The agents whose work has to begin anew."""
        kept = self.changed
        if self.old.breaker != self.new.breaker:
            kept = tuple(name for name in self.new.agents if name in self.old.agents)
        return (*self.added, *self.removed, *kept)

    def channels_to_try(self, name: str) -> tuple[str, ...]:
        """Return the agent's channels whose recorded faults say nothing any more."""
        new = self.new.agents.get(name)
        if new is None:
            return ()
        old = self.old.agents.get(name)
        if old is None or (old.sender, old.bounce_address) != (new.sender, new.bounce_address):
            return tuple(channel.name for channel in new.channels)
        before = {channel.name: channel for channel in old.channels}
        return tuple(c.name for c in new.channels if _differs(before.get(c.name), c, self.files))

    def channels_gone(self, name: str) -> tuple[str, ...]:
        """Return the agent's channels that are configured no longer."""
        old, new = self.old.agents.get(name), self.new.agents.get(name)
        left = {channel.name for channel in new.channels} if new else set()
        return tuple(c.name for c in old.channels if c.name not in left) if old else ()


def compare(old: Config, new: Config, files: frozenset[str] = frozenset()) -> Change:
    """Return what becomes of `old`; `files` as in `Change`."""
    return Change(
        old,
        new,
        added=tuple(name for name in new.agents if name not in old.agents),
        removed=tuple(name for name in old.agents if name not in new.agents),
        changed=tuple(
            name
            for name, agent in new.agents.items()
            if name in old.agents and _agent_differs(old.agents[name], agent, files)
        ),
        files=files,
    )


def keep_fixed(running: Config, read: Config) -> tuple[Config, tuple[str, ...]]:
    """Return what was read with the fixed sections as they run, and the names of those that differ."""
    running_sections = {name: getattr(running, name) for name in FIXED_SECTIONS}
    differing = tuple(name for name, value in running_sections.items() if getattr(read, name) != value)
    return msgspec.structs.replace(read, **running_sections), differing


def _agent_differs(old: Agent, new: Agent, files: Collection[str]) -> bool:
    return old != new or any(channel.ca_file in files for channel in new.channels)


def _differs(old: ChannelConfig | None, new: ChannelConfig, files: Collection[str]) -> bool:
    return old != new or new.ca_file in files
