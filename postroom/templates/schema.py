"""What a template's variables are, as JSON Schema for callers and the tools that make clients."""

from collections.abc import Collection
from typing import Any

from msgspec import UNSET

from postroom.templates.checks import MAX_ITEMS, MAX_STRING, MAX_SUBJECT_STRING, MAX_URL
from postroom.templates.variables import Variable

_PLAIN: dict[str, dict[str, Any]] = {
    "integer": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "email": {"type": "string", "format": "email"},
    "money": {
        "type": "object",
        "properties": {
            "amount": {"type": "string", "pattern": r"^-?[0-9]{1,15}(\.[0-9]{1,6})?$"},
            "currency": {"type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217"},
        },
        "required": ["amount", "currency"],
        "additionalProperties": False,
    },
}


def variables_schema(variables: dict[str, Variable], shown: Collection[str] = ()) -> dict[str, Any]:
    """Return the schema of all variables together, or of an object's fields; `shown` are those in the subject."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            name: _schema(variable, in_subject=name in shown) for name, variable in variables.items()
        },
        "additionalProperties": False,
    }
    if required := [name for name, variable in variables.items() if not variable.optional]:
        schema["required"] = required
    return schema


def _schema(variable: Variable, *, in_subject: bool) -> dict[str, Any]:
    schema = _of_type(variable, in_subject=in_subject)
    if variable.optional:
        schema["type"] = [schema["type"], "null"]  # null is the same as leaving it out
    if variable.description:
        schema["description"] = variable.description
    if variable.default is not UNSET:
        schema["default"] = variable.default
    if variable.example is not UNSET:
        schema["examples"] = [variable.example]
    return schema


def _of_type(variable: Variable, *, in_subject: bool) -> dict[str, Any]:
    limit = None if variable.max_length is UNSET else variable.max_length
    if variable.type == "string":
        return {"type": "string", "maxLength": limit or (MAX_SUBJECT_STRING if in_subject else MAX_STRING)}
    if variable.type == "url":
        return {"type": "string", "format": "uri", "maxLength": limit or MAX_URL}
    if isinstance(variable.items, Variable):
        return {
            "type": "array",
            "items": _schema(variable.items, in_subject=in_subject),
            "maxItems": MAX_ITEMS,
        }
    if isinstance(variable.fields, dict):
        return variables_schema(variable.fields, variable.fields if in_subject else ())
    return dict(_PLAIN[variable.type])
