"""The routes. Handlers decode, call the use case or read, and answer; they decide nothing themselves."""

from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get, post
from litestar.params import FromPath

from postroom.errors import Code, RefusedError
from postroom.ledger.errors import LedgerUnavailableError, LedgerUnconfirmedError
from postroom.states import State
from service.accept import RETRY_SECONDS, unavailable
from service.arrival import arrival_of
from service.auth import Identity
from service.desk import Desk
from service.docs import docs_page
from service.lookup import not_found, read_live, read_own
from service.openapi import openapi_json
from service.view import MessageList, view_file, view_message, view_why

JSON = "application/json"
_encode = msgspec.json.Encoder().encode

AnyRequest = Request[Any, Any, Any]


def _desk(request: AnyRequest) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def _refuse_query(request: AnyRequest) -> None:
    """Nothing is ignored: who asks for what this version cannot do must not take the answer for it."""
    if request.query_params:
        raise RefusedError(Code.BAD_REQUEST, "This path takes no query parameters.")


def _identity(request: AnyRequest, scope: str) -> Identity:
    return arrival_of(request.scope).identified(scope)


@post("/v1/messages", status_code=202)
async def send_message(request: AnyRequest) -> Response[bytes]:
    """Accept a message (`service.send`). The edge serves this path itself; here come its other spellings."""
    reply = await request.app.state.send_message(arrival_of(request.scope))
    headers = {name.decode(): value.decode() for name, value in reply.headers}
    return Response(reply.body, status_code=reply.status, media_type=JSON, headers=headers)


@post("/v1/files", status_code=201)
async def upload_file(request: AnyRequest) -> Response[bytes]:
    """Keep a file for use in any number of messages: 201 where it is new, 200 where the same bytes are kept already."""
    identity = _identity(request, "send")
    desk = _desk(request)
    lifetimes = request.query_params.getall("lifetime", [])
    if set(request.query_params) - {"lifetime"} or len(lifetimes) > 1:
        raise RefusedError(Code.BAD_REQUEST, "The only query parameter is one lifetime, in seconds.")
    desk.check_room()
    kinds = request.headers.getall("content-type", [])
    kind = kinds[0].strip() if len(kinds) == 1 else ""
    lifetime = lifetimes[0] if lifetimes else None
    arrival = arrival_of(request.scope)
    file, new = await desk.keep_file(identity.name, kind, arrival.body, lifetime)
    desk.account.file(identity.name, size=file.size, new=new, request_id=arrival.origin.request_id)
    return Response(_encode(view_file(file)), status_code=201 if new else 200, media_type=JSON)


@get("/v1/messages/{message_id:str}")
async def get_message(request: AnyRequest, message_id: FromPath[str]) -> Response[bytes]:
    """Show one of the caller's messages; another caller's is not found."""
    identity = _identity(request, "read")
    _refuse_query(request)
    desk = _desk(request)
    stored = await read_own(desk, identity, message_id, live=True)
    agent = identity.config.agents.get(stored.record.agent)
    view = view_message(stored, agent, desk.retention)
    return Response(_encode(view), media_type=JSON)


@get("/v1/messages/{message_id:str}/why")
async def explain_message(request: AnyRequest, message_id: FromPath[str]) -> Response[bytes]:
    """Say in one sentence why one of the caller's messages is where it is, with the data behind it."""
    identity = _identity(request, "read")
    _refuse_query(request)
    desk = _desk(request)
    stored = await read_own(desk, identity, message_id, live=True)
    view = view_why(stored, identity.config.agents.get(stored.record.agent))
    return Response(_encode(view), media_type=JSON)


@get("/v1/messages")
async def find_messages(request: AnyRequest) -> Response[bytes]:
    """Find the caller's messages by `client_ref`, under one agent or all there are.

    Agents that were taken from the caller, or from the file, keep its mail, so they are asked as well.
    """
    identity = _identity(request, "read")
    desk = _desk(request)
    refs = request.query_params.getall("client_ref", [])
    agents = request.query_params.getall("agent", [])
    unknown = set(request.query_params) - {"client_ref", "agent"}
    if unknown or len(refs) != 1 or len(agents) > 1:
        raise RefusedError(Code.BAD_REQUEST, "Ask with one client_ref and at most one agent.")
    digests = desk.digests()
    try:
        places = await _places(desk, identity, agents)
        ids = await desk.reading.find((a, digests.ref(identity.name, a, refs[0])) for a in places)
    except LedgerUnavailableError:
        raise unavailable() from None
    found = [stored for i in ids if (stored := await read_live(desk, i)) is not None]
    views = [view_message(s, identity.config.agents.get(s.record.agent), desk.retention) for s in found]
    return Response(_encode(MessageList(views)), media_type=JSON)


async def _places(desk: Desk, identity: Identity, asked: list[str]) -> list[str]:
    known = set(identity.caller.agents)
    if not known.issuperset(asked) or not asked:
        known |= await desk.agents()
    return sorted(known.intersection(asked) if asked else known)


@post("/v1/messages/{message_id:str}/cancel", status_code=200)
async def cancel_message(request: AnyRequest, message_id: FromPath[str]) -> Response[bytes]:
    """Call a message back while nothing of it may have been sent; honest where that is too late."""
    identity = _identity(request, "send")
    _refuse_query(request)
    desk = _desk(request)
    await read_own(desk, identity, message_id)
    try:
        cancelled = await desk.cancel(message_id)
    except LedgerUnavailableError:
        raise unavailable() from None
    except LedgerUnconfirmedError:
        detail = "The ledger did not answer in time. Ask again."
        raise RefusedError(Code.UNAVAILABLE, detail, retry_after=RETRY_SECONDS) from None
    if cancelled is None:
        raise not_found()
    if not cancelled.by_us and cancelled.state != State.CANCELLED:
        detail = f"The message is {cancelled.state}: it can only be cancelled before it goes to the channel."
        raise RefusedError(Code.TOO_LATE, detail, message_id=message_id)
    if cancelled.ended is not None:
        desk.account.cancelled(cancelled.ended, arrival_of(request.scope).origin.request_id)
    stored = await read_own(desk, identity, message_id)
    agent = identity.config.agents.get(stored.record.agent)
    return Response(_encode(view_message(stored, agent, desk.retention)), media_type=JSON)


@get("/livez", sync_to_thread=False)
def livez(request: AnyRequest) -> Response[str]:
    """Answer 200 as long as the event loop turns and the process's loops come round; Redis has no say in it."""
    stalled = _desk(request).heart.stalled()
    text = f"stalled: {', '.join(stalled)}\n" if stalled else "ok\n"
    return Response(text, status_code=503 if stalled else 200, media_type=MediaType.TEXT)


@get("/readyz")
async def readyz(request: AnyRequest) -> Response[bytes]:
    """Say whether callers should be sent here. Without Redis they should: they get clean 503s."""
    desk = _desk(request)
    body = {"ready": not desk.draining, "redis": "ok" if desk.redis_ok else "unavailable"}
    return Response(_encode(body), status_code=503 if desk.draining else 200, media_type=JSON)


@get("/openapi.json", sync_to_thread=False)
def openapi(request: AnyRequest) -> Response[bytes]:
    """Return the contract, with the variables of each template as they are now."""
    return Response(openapi_json(tuple(_desk(request).shelf)), media_type=JSON)


@get("/docs", sync_to_thread=False)
def docs() -> Response[str]:
    """Show the contract as a page that needs nothing from anywhere else."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return Response(docs_page(), media_type=MediaType.HTML, headers={"content-security-policy": policy})


ROUTES = [
    send_message,
    upload_file,
    get_message,
    explain_message,
    find_messages,
    cancel_message,
    livez,
    readyz,
    openapi,
    docs,
]
