"""Whether some channel of the agent can carry what a request names: the Sender, and files that only a provider has."""

from collections.abc import Collection, Iterator

from postroom.config.carrying import (
    able_channels,
    carries_provider_images,
    carries_provider_keys,
    carries_sender,
)
from postroom.config.structs import Agent
from postroom.decode import Fault
from postroom.file_header import MAX_LENGTH, is_key, is_name, room_beside
from postroom.message import Address, AttachmentRef

NO_PLACE = "needs a channel of kind zeptomail: ZeptoMail's relay has no place for it"


def find_uncarried(
    agent: Agent, submitter: Address | None, files: Collection[AttachmentRef]
) -> Iterator[Fault]:
    """Yield what no channel of the agent can carry. `submitter` is who would stand in Sender."""
    if submitter is None and not files:
        return
    if submitter is not None and not carries_sender(agent):
        yield Fault("/sender", "no channel of this agent can carry a Sender: only SMTP can")
        return
    found = list(_file_faults(agent, files))
    if not found and not able_channels(agent.channels, submitter, files):
        found = [Fault("/attachments", "no channel of this agent can carry a Sender beside these files")]
    yield from found


def _file_faults(agent: Agent, files: Collection[AttachmentRef]) -> Iterator[Fault]:
    able, over_api = carries_provider_keys(agent), carries_provider_images(agent)
    for index, file in enumerate(files):
        if not file.provider_key:
            continue
        pointer = f"/attachments/{index}"
        if not able:
            yield Fault(f"{pointer}/provider_key", "no channel of this agent can name a provider's file")
        elif not over_api and not is_key(file.provider_key):
            yield Fault(f"{pointer}/provider_key", NO_PLACE)
        if not is_name(file.name):
            detail = "must be ASCII without ',', ':', '=?' and two spaces in a row beside a provider_key"
            yield Fault(f"{pointer}/name", detail)
        if able and not over_api and file.cid is not None:
            yield Fault(f"{pointer}/cid", f"beside a provider_key {NO_PLACE}")
    if able and not over_api and room_beside(files) < 0:
        detail = f"have more than {MAX_LENGTH} characters of provider keys, and their commas, together: that {NO_PLACE}"
        yield Fault("/attachments", detail)
