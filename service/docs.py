"""The contract as one page without scripts, so that it can be read where nothing else can be fetched."""

from functools import cache
from html import escape
from typing import Any

import msgspec

from service.openapi import openapi_document

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --accent: #2563eb; }
body { font: 16px/1.55 system-ui, sans-serif; margin: 0 auto; padding: 2rem 1.25rem 6rem; max-width: 60rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
code, pre { font: .88em/1.5 ui-monospace, monospace; } pre { overflow-x: auto; padding: 1rem; border-radius: .5rem;
background: var(--soft); } table { border-collapse: collapse; width: 100%; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line); }
.verb { color: #fff; background: var(--accent); border-radius: .3rem; padding: .1rem .5rem; font-weight: 600; }
a { color: var(--accent); } .note { opacity: .75; } nav a { margin-right: 1rem; }
"""


@cache
def docs_page() -> str:
    """Return the page."""
    document = openapi_document()
    info = document["info"]
    operations = [
        (path, verb, operation)
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
    ]
    links = "".join(f'<a href="#{o["operationId"]}">{escape(o["summary"])}</a>' for _, _, o in operations)
    body = "".join(_operation(*operation) for operation in operations)
    schemas = "".join(_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Postroom API</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f'<h1>Postroom API</h1><p class="note">Version {escape(info["version"])} · '
        f'<a href="/openapi.json">openapi.json</a></p><p>{_text(info["description"])}</p>'
        f"<p>Every request to <code>/v1</code> carries <code>Authorization: Bearer TOKEN</code>.</p>"
        f"<nav>{links}</nav>{body}<h2>Schemas</h2>{schemas}</body></html>"
    )


def _operation(path: str, verb: str, operation: dict[str, Any]) -> str:
    parts = [
        f'<h2 id="{operation["operationId"]}">{escape(operation["summary"])}</h2>',
        f'<p><span class="verb">{verb.upper()}</span> <code>{escape(path)}</code></p>',
        f"<p>{_text(operation.get('description', ''))}</p>",
    ]
    if parameters := operation.get("parameters"):
        rows = "".join(
            f"<tr><td><code>{escape(p['name'])}</code></td><td>{escape(p['in'])}</td>"
            f"<td>{_text(p.get('description', ''))}</td></tr>"
            for p in parameters
        )
        parts.append(f"<h3>Parameters</h3><table>{rows}</table>")
    if body := operation.get("requestBody"):
        parts.append(_body(*next(iter(body["content"].items()))))
    rows = "".join(_response(status, response) for status, response in operation["responses"].items())
    parts.append(f"<h3>Answers</h3><table>{rows}</table>")
    return "".join(parts)


def _body(media_type: str, content: dict[str, Any]) -> str:
    if "example" not in content:
        return f"<h3>Body: {_kind(content['schema'])} (<code>{escape(media_type)}</code>)</h3>"
    example = msgspec.json.format(msgspec.json.encode(content["example"]), indent=2).decode()
    return f"<h3>Body: {_kind(content['schema'])}</h3><pre>{escape(example)}</pre>"


def _response(status: str, response: dict[str, Any]) -> str:
    kinds = ", ".join(_kind(content["schema"]) for content in response["content"].values())
    return f"<tr><td><b>{status}</b></td><td>{_text(response['description'])}</td><td>{kinds}</td></tr>"


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code></td><td>{_kind(part)}</td>"
        f"<td>{'required' if field in required else ''}</td><td>{_text(part.get('description', ''))}</td></tr>"
        for field, part in schema.get("properties", {}).items()
    )
    heading = f'<h3 id="{escape(name)}">{escape(name)}</h3>'
    return f"{heading}<p>{_text(schema.get('description', ''))}</p><table>{rows}</table>"


def _kind(schema: dict[str, Any]) -> str:
    if ref := schema.get("$ref"):
        name = escape(ref.rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if options := schema.get("anyOf"):
        return " or ".join(_kind(option) for option in options)
    if values := schema.get("enum"):
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in values)
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
        return f"list of {_kind(schema['items'])}"
    return escape(str(schema.get("format") or schema.get("type", "anything")))


def _text(markdown: str) -> str:
    """Show backquoted words as code; the descriptions use no other markup."""
    pieces = escape(markdown).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))
