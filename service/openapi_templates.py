"""The templates' part of the contract: their operations, and the variables of each one as a schema of its own.

`TemplateChoice` becomes a choice between the templates there are, told apart by `name`, so a client made of the
document has typed variables.
"""

from typing import Any

from postroom.templates import Template
from postroom.templates.schema import variables_schema
from service.openapi_parts import REF, answer, problems, ref

_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_VERSION = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
_EXAMPLE = {
    "files": {
        "template.toml": 'description = "Says hello."\n[variables.name]\ntype = "string"\nexample = "Ada"\n',
        "subject.txt": "Hello {{ name }}",
        "body.html": "<p>Hello {{ name }}</p>",
    }
}


def template_schemas(templates: tuple[Template, ...], choice: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas of these templates, and of the choice between them."""
    schemas: dict[str, Any] = {}
    mapping: dict[str, str] = {}
    for template in templates:
        stem = _stem(template.name, schemas)
        variables = variables_schema(template.variables, template.shown)
        schemas[f"{stem}Variables"] = {"title": f"{stem}Variables", **variables}
        schemas[f"{stem}Template"] = {
            "title": f"{stem}Template",
            "description": template.description,
            "type": "object",
            "properties": {
                **choice["properties"],
                "name": {"const": template.name},
                "variables": ref(f"{stem}Variables"),
            },
            "required": ["name", *(["variables"] if variables.get("required") else [])],
            "additionalProperties": False,
        }
        mapping[template.name] = REF.format(name=f"{stem}Template")
    if mapping:
        schemas["TemplateChoice"] = {
            "title": "TemplateChoice",
            "description": "A template and its variables.",
            "oneOf": [{"$ref": target} for target in mapping.values()],
            "discriminator": {"propertyName": "name", "mapping": mapping},
        }
    return schemas


def template_paths() -> dict[str, Any]:
    """Return the operations."""
    return {
        "/v1/templates": {
            "get": {
                "operationId": "listTemplates",
                "summary": "List templates",
                "responses": {
                    "200": answer("All templates at their current versions.", "TemplateList"),
                    **problems(400, 401, 403, 429, 500, 503),
                },
            }
        },
        "/v1/templates/{name}": {"get": _show(), "put": _publish()},
        "/v1/templates/{name}/versions": {
            "get": {
                "operationId": "listTemplateVersions",
                "summary": "List a template's versions",
                "parameters": [_NAME],
                "responses": {
                    "200": answer("The versions it has had, the newest first.", "VersionList"),
                    **problems(400, 401, 403, 404, 429, 500, 503),
                },
            }
        },
        "/v1/templates/{name}/versions/{version}": {
            "get": {
                "operationId": "getTemplateVersion",
                "summary": "Show the files of a version",
                "parameters": [_NAME, _VERSION],
                "responses": {
                    "200": answer("The files.", "VersionFiles"),
                    **problems(400, 401, 403, 404, 429, 500, 503),
                },
            }
        },
    }


def _show() -> dict[str, Any]:
    return {
        "operationId": "getTemplate",
        "summary": "Show a template",
        "description": "Its variables as JSON Schema, its delivery defaults, and a request that sends it.",
        "parameters": [_NAME],
        "responses": {
            "200": answer("The template.", "TemplateDetail"),
            **problems(400, 401, 403, 404, 429, 500, 503),
        },
    }


def _publish() -> dict[str, Any]:
    return {
        "operationId": "publishTemplate",
        "summary": "Publish a template, or roll it back",
        "description": "Needs the scope `templates`. With `files`, they are compiled and every example is rendered "
        "before the version is taken; with `version`, an older version becomes the current one. All processes use "
        "it within a second; messages that are queued keep theirs.",
        "parameters": [_NAME],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": ref("PublishRequest"), "example": _EXAMPLE}},
        },
        "responses": {
            "200": answer("The template at its current version.", "TemplateDetail"),
            **problems(400, 401, 403, 408, 413, 415, 422, 429, 500, 503),
        },
    }


def _stem(name: str, taken: dict[str, Any]) -> str:
    """`order_shipped` as `OrderShipped`; a second name that looks the same gets a number."""
    stem = "".join(word.capitalize() for word in name.replace("-", "_").split("_"))
    number = 2
    unique = stem
    while f"{unique}Template" in taken:
        unique, number = f"{stem}{number}", number + 1
    return unique
