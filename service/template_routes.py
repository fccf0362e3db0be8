"""The routes of templates. Publishing asks for the scope `templates`, looking for that one or `read`."""

from typing import Any

import msgspec
from litestar import Request, Response, get, put
from litestar.params import FromPath

from postroom.errors import Code, RefusedError
from service.arrival import arrival_of
from service.auth import Identity
from service.templates import TemplateDesk

JSON = "application/json"
_encode = msgspec.json.Encoder().encode

AnyRequest = Request[Any, Any, Any]


@get("/v1/templates", sync_to_thread=False)
def list_templates(request: AnyRequest) -> Response[bytes]:
    """List all templates at their current versions."""
    _looker(request)
    return Response(_encode(_desk(request).all()), media_type=JSON)


@get("/v1/templates/{name:str}", sync_to_thread=False)
def get_template(request: AnyRequest, name: FromPath[str]) -> Response[bytes]:
    """Show a template: its variables as JSON Schema, and a request that sends it."""
    identity = _looker(request)
    return Response(_encode(_desk(request).one(name, identity)), media_type=JSON)


@get("/v1/templates/{name:str}/versions")
async def list_versions(request: AnyRequest, name: FromPath[str]) -> Response[bytes]:
    """List the versions that a template has had."""
    _looker(request)
    return Response(_encode(await _desk(request).versions(name)), media_type=JSON)


@get("/v1/templates/{name:str}/versions/{version:str}")
async def get_version(request: AnyRequest, name: FromPath[str], version: FromPath[str]) -> Response[bytes]:
    """Show the files of one version."""
    _looker(request)
    return Response(_encode(await _desk(request).files(name, version)), media_type=JSON)


@put("/v1/templates/{name:str}")
async def publish_template(request: AnyRequest, name: FromPath[str]) -> Response[bytes]:
    """Publish a template's files as its new version, or point at an older version."""
    arrival = arrival_of(request.scope)
    detail = await _desk(request).publish(arrival.identified("templates"), name, arrival.body)
    return Response(_encode(detail), media_type=JSON)


TEMPLATE_ROUTES = [list_templates, get_template, list_versions, get_version, publish_template]


def _looker(request: AnyRequest) -> Identity:
    identity = arrival_of(request.scope).identity
    if identity is None or not {"templates", "read"} & set(identity.token.scopes):
        raise RefusedError(Code.SCOPE_MISSING, "The token's scopes include neither templates nor read.")
    if request.query_params:
        raise RefusedError(Code.BAD_REQUEST, "This path takes no query parameters.")
    return identity


def _desk(request: AnyRequest) -> TemplateDesk:
    desk: TemplateDesk = request.app.state.templates
    return desk
