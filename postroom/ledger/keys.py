"""Names of the ledger's keys: with the scripts, the only place that knows them.

Every key carries the hash tag of its agent's partition, so a script touches one slot of a cluster and the
whole ledger spreads over sixteen.
"""

import binascii
from functools import lru_cache
from typing import NamedTuple

PARTITIONS = 16
DIGEST_KEY = "pr:digest-key"
CHANGES_KEY = "pr:changes"
TEMPLATES_KEY = "pr:templates"  # a hash: what is published of each template, by name
TEMPLATES_COUNTER = "#"  # the field that counts changes of it; no template has this name
EXPORTER_KEY = "pr:exporter"  # who tells of what is the same for all processes (`postroom.exporter`)

CANARIES_KEY = "pr:canaries"  # a hash: what is known of each agent's canary
CANARY_KEY = "pr:canary"  # who sends them (`service.canary`)


class Place(NamedTuple):
    """Where an agent's part of the ledger lies."""

    prefix: str
    agenda: str


def partition_prefix(number: int) -> str:
    """Return the prefix of a partition's keys, hash tag included."""
    return f"pr:{{p{number:02d}}}:"


def place_of_partition(number: int) -> Place:
    """Return a partition's prefix and agenda."""
    prefix = partition_prefix(number)
    return Place(prefix, prefix + "agenda")


@lru_cache(maxsize=65536)
def place_of(agent: str) -> Place:
    """Return the prefix and agenda of an agent's partition (CRC16 of its name, like Redis's own slots)."""
    return place_of_partition(binascii.crc_hqx(agent.encode(), 0) % PARTITIONS)


def agent_of(message_id: str) -> str:
    """Return the agent a message id names; any text is taken, an id that names none leads nowhere."""
    return message_id.rpartition("-")[0]


def record_key(message_id: str) -> str:
    """Key of the record, a hash."""
    return f"{place_of(agent_of(message_id)).prefix}m:{message_id}"


def payload_key(message_id: str) -> str:
    """Key of the stored request."""
    return f"{place_of(agent_of(message_id)).prefix}p:{message_id}"


def blob_key(message_id: str, index: int) -> str:
    """Key of an attachment's bytes."""
    return f"{place_of(agent_of(message_id)).prefix}b:{message_id}:{index}"


def place_of_file(file: str) -> Place:
    """Return the prefix of a cached file's slot, and the set of the slot's files by when to look at them."""
    return place_of_file_slot(binascii.crc_hqx(file.encode(), 0) % PARTITIONS)


def place_of_file_slot(number: int) -> Place:
    """Return the prefix and the set of one of the files' slots; they are not those of agents' partitions."""
    prefix = f"pr:{{f{number:02d}}}:"
    return Place(prefix, prefix + "look")


def file_key(file: str) -> str:
    """Key of a cached file, a hash."""
    return f"{place_of_file(file).prefix}f:{file}"


def provider_key(agent: str, channel: str, file: str) -> str:
    """Key of the name by which a channel's provider knows a cached file."""
    return f"{place_of(agent).prefix}pk:{agent}:{channel}:{file}"


def upload_rest_key(agent: str, channel: str, file: str = "") -> str:
    """Key of the mark that a file, or without one any file, is not to be uploaded to a channel's provider for now."""
    return f"{place_of(agent).prefix}pr:{agent}:{channel}:{file}"


def ref_key(agent: str, ref: str) -> str:
    """Key of a `client_ref`'s entry; `ref` is its keyed digest (`postroom.ledger.digests`)."""
    return f"{place_of(agent).prefix}r:{ref}"


def faults_key(agent: str) -> str:
    """Key of the faults of an agent's channels, a hash."""
    return f"{place_of(agent).prefix}faults:{agent}"


def halt_key(agent: str) -> str:
    """Key of what stands over an agent, a hash."""
    return f"{place_of(agent).prefix}halt:{agent}"


def lanes_key(agent: str) -> str:
    """Key of an agent's lanes, a sorted set by the end of each one's lease."""
    return f"{place_of(agent).prefix}lanes:{agent}"


def width_key(agent: str) -> str:
    """Key of how many connections an agent has for a while that was asked to slow down, a hash."""
    return f"{place_of(agent).prefix}width:{agent}"


def bucket_key(agent: str) -> str:
    """Key of the arrival time of an agent's rate."""
    return f"{place_of(agent).prefix}bucket:{agent}"


def day_key(agent: str) -> str:
    """Key of how many recipients an agent has used up of its day."""
    return f"{place_of(agent).prefix}day:{agent}"


def template_key(name: str, version: str) -> str:
    """Key of a template version's files."""
    return f"pr:template:{name}:{version}"


def template_history_key(name: str) -> str:
    """Key of the versions that a template has had, a list."""
    return f"pr:template-history:{name}"


def bell_channel(agent: str) -> str:
    """Name of the pub/sub channel that wakes an agent's idle lanes; the scripts' prelude names it too."""
    return f"pr:bell:{agent}"
