"""Pieces that every operation of the contract is made of."""

from typing import Any

from service.problem import CONTENT_TYPE, STATUS

REF = "#/components/schemas/{name}"


def ref(name: str) -> dict[str, str]:
    """Point at a schema."""
    return {"$ref": REF.format(name=name)}


def answer(description: str, name: str) -> dict[str, Any]:
    """Describe an answer in JSON."""
    return {"description": description, "content": {"application/json": {"schema": ref(name)}}}


def problems(*statuses: int) -> dict[str, Any]:
    """Describe the refusals with these statuses, each with its codes."""
    out: dict[str, Any] = {}
    for status in statuses:
        codes = [f"`{code}`" for code, (number, _title) in STATUS.items() if number == status]
        out[str(status)] = {
            "description": "Problem: " + ", ".join(codes),
            "content": {CONTENT_TYPE: {"schema": ref("Problem")}},
        }
    return out
