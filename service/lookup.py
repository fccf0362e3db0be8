"""Finding messages for those who may see them."""

from postroom.errors import Code, RefusedError
from postroom.ids import is_message_id
from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.reading import StoredMessage
from service.accept import unavailable
from service.auth import Identity
from service.desk import Desk


async def read_own(desk: Desk, identity: Identity, message_id: str, *, live: bool = False) -> StoredMessage:
    """Return a caller's message; another caller's is not found."""
    stored = await _read(desk, message_id) if is_message_id(message_id) else None
    if stored is None or stored.record.caller != identity.name:
        raise not_found()
    return await _ended_if_overdue(desk, stored) if live else stored


async def read_live(desk: Desk, message_id: str) -> StoredMessage | None:
    """Return a message as it stands now."""
    stored = await _read(desk, message_id)
    return stored and await _ended_if_overdue(desk, stored)


def not_found() -> RefusedError:
    """Return the refusal that tells nothing of other callers' messages."""
    return RefusedError(Code.NOT_FOUND, "No message of this caller has this id.")


async def _ended_if_overdue(desk: Desk, stored: StoredMessage) -> StoredMessage:
    """Nobody is shown a message as waiting after its time, though its agent stands still and no worker looks."""
    if stored.overdue and await desk.lapse(stored.record.id):
        return await _read(desk, stored.record.id) or stored
    return stored


async def _read(desk: Desk, message_id: str) -> StoredMessage | None:
    try:
        return await desk.reading.message(message_id)
    except LedgerUnavailableError:
        raise unavailable() from None
