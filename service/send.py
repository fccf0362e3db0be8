"""`POST /v1/messages`, from the request as it arrived to its answer: decode, accept, account, show."""

from functools import partial
from urllib.parse import parse_qsl

import msgspec

from postroom.decode import convert
from postroom.errors import Code, RefusedError
from postroom.ledger.reading import StoredMessage
from service.accept import Accepted
from service.arrival import Arrival, Reply
from service.auth import Identity
from service.desk import Desk
from service.lookup import read_live
from service.schema import Decoded, decode_request
from service.view import AcceptedView, view_accepted, view_created

_encode = msgspec.json.Encoder().encode


class SendMessage:
    """The route. It decides nothing itself."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, arrival: Arrival) -> Reply:
        """Accept a message: 202 once it is recorded, 200 where its ref was known, or for a dry run.

        Raises:
            RefusedError: it was not.
        """
        identity = arrival.identified("send")
        is_dry_run = bool(arrival.query) and _is_dry_run(arrival.query)
        if not is_dry_run:
            self._desk.check_room()
        wanted = _with_ref(decode_request(arrival.body), arrival.fields.all(b"idempotency-key"))
        if is_dry_run:
            found = await self._desk.rehearse(identity, _with_any_ref(wanted), arrival.origin)
            return Reply(200, (), _encode(found))
        accepted = await self._desk.accept(identity, wanted, arrival.origin)
        arrival.tell = partial(self._desk.account.accepted, accepted, arrival.origin)
        view = await self._view(identity, accepted)
        arrival.message_id = view.id
        replayed = accepted.created is None
        headers = (
            (b"location", b"/v1/messages/" + view.id.encode()),
            (b"idempotent-replayed", b"true" if replayed else b"false"),
        )
        return Reply(200 if replayed else 202, headers, _encode(view))

    async def _view(self, identity: Identity, accepted: Accepted) -> AcceptedView:
        if accepted.record is not None:
            # A replay answers the live state, with what holds the message up.
            stored = await read_live(self._desk, accepted.record.id) or StoredMessage(accepted.record, None)
            agent = identity.config.agents.get(accepted.record.agent)
            return AcceptedView(**view_accepted(stored, agent, self._desk.retention))
        assert accepted.created is not None
        assert accepted.offer is not None
        agent = identity.config.agents.get(accepted.offer.agent)
        return view_created(accepted.offer, accepted.created, agent)


def _with_ref(decoded: Decoded, keys: list[bytes]) -> Decoded:
    """Take `Idempotency-Key` for the client_ref: bare, or an RFC 8941 string in quotes."""
    if not keys:
        return decoded
    if len(keys) > 1:
        raise RefusedError(Code.IDEMPOTENCY_KEY_MISMATCH, "Send Idempotency-Key once.")
    key = keys[0].decode("latin-1")
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    request = decoded.request
    if request.client_ref is None:
        named, faults = convert(
            msgspec.to_builtins(msgspec.structs.replace(request, client_ref=key)), type(request)
        )
        return Decoded(named or request, [*decoded.faults, *faults])
    if request.client_ref != key:
        raise RefusedError(Code.IDEMPOTENCY_KEY_MISMATCH, "Send one of them, or the same in both.")
    return decoded


def _is_dry_run(query: bytes) -> bool:
    """Nothing is ignored: a caller who asks for what this version cannot do must not be sent for."""
    asked = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    if not asked:
        return False
    if len(asked) != 1 or asked[0] not in (("dry_run", "true"), ("dry_run", "false")):
        raise RefusedError(Code.BAD_REQUEST, "This path takes the query parameter dry_run: true or false.")
    return asked[0][1] == "true"


def _with_any_ref(decoded: Decoded) -> Decoded:
    """A dry run uses no ref, so it needs none."""
    if decoded.request.client_ref is not None:
        return decoded
    request = msgspec.structs.replace(decoded.request, client_ref="dry-run")
    return msgspec.structs.replace(decoded, request=request)
