"""The contract as an OpenAPI 3.1 document, made from the structs the routes really use.

It is built by hand around msgspec's JSON Schemas because the routes decode bodies themselves, strictly; a test
holds that every route is in it, and that `openapi/postroom.yaml` is this very document.
"""

from functools import lru_cache
from typing import Any

import msgspec

from postroom import __version__
from postroom.templates import Template
from service.openapi_parts import REF, answer, problems, ref
from service.openapi_templates import template_paths, template_schemas
from service.problem import Problem
from service.rehearse import DryRunView
from service.schema import MessageRequest
from service.templates import PublishRequest, TemplateDetail, TemplateList, VersionFiles, VersionList
from service.view import AcceptedView, FileView, MessageList, MessageView, WhyView

EXAMPLE = {
    "client_ref": "order-10023-shipped",
    "agent": "orders",
    "to": [{"address": "ada@example.com", "name": "Ada Lovelace"}],
    "template": {
        "name": "order_shipped",
        "variables": {
            "first_name": "Ada",
            "order_number": "10023",
            "tracking_url": "https://shop.example/track/10023",
        },
    },
    "metadata": {"order": "10023"},
}


@lru_cache(maxsize=2)
def openapi_document(templates: tuple[Template, ...] = ()) -> dict[str, Any]:
    """Return the document; the variables of these templates are typed in it."""
    kinds = [
        *(MessageRequest, AcceptedView, MessageView, WhyView, MessageList, FileView, Problem, DryRunView),
        *(PublishRequest, TemplateList, TemplateDetail, VersionList, VersionFiles),
    ]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=REF)
    for schema in schemas.values():
        _clean(schema)
    schemas |= template_schemas(templates, schemas["TemplateChoice"])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Postroom",
            "version": __version__,
            "description": "Internal services send email through Postroom. 202 means recorded; `sent` means that "
            "the provider took responsibility, which is not `delivered`. On a timeout or a 503, repeat the "
            "request with the same client_ref: it is never sent twice for that.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


@lru_cache(maxsize=2)
def openapi_json(templates: tuple[Template, ...] = ()) -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(openapi_document(templates))


def _clean(schema: Any) -> None:
    """Write the end of a text as `$` in regular expressions: JSON Schema's dialect knows no other."""
    if isinstance(schema, dict):
        if isinstance(pattern := schema.get("pattern"), str):
            schema["pattern"] = pattern.replace(r"\Z", "$")
        for value in schema.values():
            _clean(value)
    elif isinstance(schema, list):
        for value in schema:
            _clean(value)


def _paths() -> dict[str, Any]:
    return {
        "/v1/messages": {"post": _send(), "get": _find()},
        "/v1/files": {"post": _upload()},
        "/v1/messages/{message_id}": {"get": _show()},
        "/v1/messages/{message_id}/why": {"get": _why()},
        "/v1/messages/{message_id}/cancel": {"post": _cancel()},
        **template_paths(),
        "/livez": {
            "get": _plain("livez", "Is the process alive?", "text/plain", {"type": "string"}, (200, 503))
        },
        "/readyz": {
            "get": _plain("readyz", "Should callers be sent here?", "application/json", _READY, (200, 503))
        },
        "/openapi.json": {
            "get": _plain("openapi", "This document.", "application/json", {"type": "object"}, (200,))
        },
        "/docs": {"get": _plain("docs", "This document as a page.", "text/html", {"type": "string"}, (200,))},
    }


_READY = {
    "type": "object",
    "properties": {"ready": {"type": "boolean"}, "redis": {"enum": ["ok", "unavailable"]}},
    "required": ["ready", "redis"],
}


def _send() -> dict[str, Any]:
    replayed = {
        "Location": {"schema": {"type": "string"}, "description": "Where to read the message."},
        "Idempotent-Replayed": {
            "schema": {"enum": ["true", "false"]},
            "description": "true where this ref was accepted before.",
        },
    }
    return {
        "operationId": "sendMessage",
        "summary": "Accept a message",
        "description": "One client_ref is one message: the same ref with the same content answers 200 with the "
        "live state; with other content 409, naming the fields that differ.",
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "schema": {"type": "string"},
                "description": "An alias of client_ref; both and different is a 400.",
            },
            {
                "name": "dry_run",
                "in": "query",
                "schema": {"type": "boolean", "default": False},
                "description": "With `true` everything is done but the sending: 200 with a `DryRunView`, the subject, "
                "text, html and size that would be sent, "
                "and the plan with every option and where it came from. No ref is used.",
            },
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": ref("MessageRequest"), "example": EXAMPLE}},
        },
        "responses": {
            "202": {**answer("Recorded; an attempt is owed.", "AcceptedView"), "headers": replayed},
            "200": {
                "description": "This ref was accepted before; or what a dry run found.",
                "content": {
                    "application/json": {"schema": {"anyOf": [ref("AcceptedView"), ref("DryRunView")]}}
                },
                "headers": replayed,
            },
            **problems(400, 401, 403, 408, 409, 413, 415, 422, 429, 500, 503),
        },
    }


def _upload() -> dict[str, Any]:
    return {
        "operationId": "uploadFile",
        "summary": "Keep a file for many messages",
        "description": "The body is the file itself, Content-Type its own. The same bytes of the same type are one "
        "file, kept once; its key goes as `file` into the attachments of any message of this caller. Messages that "
        "use it keep it as long as they need it.",
        "parameters": [
            {
                "name": "lifetime",
                "in": "query",
                "required": False,
                "schema": {"type": "integer", "minimum": 60},
                "description": "Seconds for which new messages may use it; sent again, it is only ever made longer.",
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
        },
        "responses": {
            "201": answer("Kept.", "FileView"),
            "200": answer("The same bytes were kept already.", "FileView"),
            **problems(400, 401, 403, 408, 413, 415, 422, 429, 500, 503),
        },
    }


def _find() -> dict[str, Any]:
    return {
        "operationId": "findMessages",
        "summary": "Find messages by client_ref",
        "description": "Under one agent, or under all there are: mail is found as well whose agent was taken from the "
        "caller or from the configuration.",
        "parameters": [
            {"name": "client_ref", "in": "query", "required": True, "schema": {"type": "string"}},
            {"name": "agent", "in": "query", "required": False, "schema": {"type": "string"}},
        ],
        "responses": {
            "200": answer("The caller's messages with this ref.", "MessageList"),
            **problems(400, 401, 403, 429, 500, 503),
        },
    }


def _show() -> dict[str, Any]:
    return {
        "operationId": "getMessage",
        "summary": "Show a message with its timeline",
        "parameters": [{"name": "message_id", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {
            "200": answer("The message.", "MessageView"),
            **problems(400, 401, 403, 404, 429, 500, 503),
        },
    }


def _why() -> dict[str, Any]:
    return {
        "operationId": "explainMessage",
        "summary": "Say why a message is where it is",
        "description": "One sentence, and the data behind it: what the message waits for or what ended it, since when, "
        "until when, whose matter it is, and which rule of the configuration or the request says so.",
        "parameters": [{"name": "message_id", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {
            "200": answer("Why.", "WhyView"),
            **problems(400, 401, 403, 404, 429, 500, 503),
        },
    }


def _cancel() -> dict[str, Any]:
    return {
        "operationId": "cancelMessage",
        "summary": "Cancel a message",
        "description": "Ends a message before it goes to the channel. Cancelling twice answers 200 twice; once the "
        "channel may have it, or it has ended otherwise, 409 `too_late`. Of a message that has had an attempt already "
        "only what still waits is called back: look at `state`. It is `partly_sent` where others have it, and "
        "`unconfirmed` where it waited for another attempt after one whose answer got lost (reason `ambiguous`): "
        "nothing more is sent, but the provider may have it.",
        "parameters": [{"name": "message_id", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {
            "200": answer("The message; nothing more of it is sent.", "MessageView"),
            **problems(400, 401, 403, 404, 409, 429, 500, 503),
        },
    }


def _plain(
    name: str, summary: str, kind: str, schema: dict[str, Any], statuses: tuple[int, ...]
) -> dict[str, Any]:
    content = {kind: {"schema": schema}}
    responses = {str(status): {"description": summary, "content": content} for status in statuses}
    return {"operationId": name, "summary": summary, "security": [], "responses": responses}
