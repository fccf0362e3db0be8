"""Strict decoding that reports every fault at once and repeats no value."""

import time
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct

from postroom.decode import Fault, convert, join

CANARY = "Kanarienvogel"


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Part(Struct, forbid_unknown_fields=True):
    size: Annotated[int, Meta(ge=1, le=9)]
    label: Annotated[str, Meta(max_length=5)] = ""


class Round(Struct, tag="round", tag_field="kind", forbid_unknown_fields=True):
    radius: int


class Square(Struct, tag="square", tag_field="kind", forbid_unknown_fields=True):
    side: int


class Sealed:
    """Stands for a type only a hook can read."""


class Whole(Struct, forbid_unknown_fields=True, kw_only=True):
    name: Annotated[str, Meta(min_length=2, pattern=r"^[a-z]+\Z")]
    kind: Literal["small", "large"] = "small"
    colour: Colour = Colour.RED
    part: Part | None = None
    parts: Annotated[tuple[Part, ...], Meta(max_length=2)] = ()
    words: list[str] = []
    table: dict[Annotated[str, Meta(max_length=3)], int] = {}
    shape: Round | Square | None = None
    number_or_text: int | str = 0
    from_: str = ""
    anything: Any = None


class Renamed(Struct, rename={"from_": "from"}, forbid_unknown_fields=True):
    from_: str


class Open(Struct):
    size: int


class Sealing(Struct, forbid_unknown_fields=True):
    seal: Sealed | None = None
    other: int = 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, [("/name", "required, but missing")]),
        ({"name": 1}, [("/name", "expected `str`, got `int`")]),
        ({"name": None}, [("/name", "expected `str`, got `null`")]),
        ({"name": "x"}, [("/name", "expected `str` of length >= 2")]),
        ({"name": "okay", "kind": CANARY}, [("/kind", "must be one of: small, large")]),
        ({"name": "okay", "kind": 1}, [("/kind", "expected `str`, got `int`")]),
        ({"name": "okay", "colour": CANARY}, [("/colour", "must be one of: red, blue")]),
        ({"name": "okay", "bcx": CANARY}, [("/bcx", "unknown field")]),
        ({"name": "okay", "part": CANARY}, [("/part", "expected `object | null`, got `str`")]),
        ({"name": "okay", "part": {}}, [("/part/size", "required, but missing")]),
        ({"name": "okay", "part": {"size": 10}}, [("/part/size", "expected `int` <= 9")]),
        ({"name": "okay", "part": {"size": 1.0}}, [("/part/size", "expected `int`, got `float`")]),
        ({"name": "okay", "part": {"size": True}}, [("/part/size", "expected `int`, got `bool`")]),
        ({"name": "okay", "part": {"size": "1"}}, [("/part/size", "expected `int`, got `str`")]),
        ({"name": "okay", "parts": {}}, [("/parts", "expected `array`, got `object`")]),
        ({"name": "okay", "parts": [{"size": 1}] * 3}, [("/parts", "expected `array` of length <= 2")]),
        ({"name": "okay", "words": [1, "a", None]}, [
            ("/words/0", "expected `str`, got `int`"), ("/words/2", "expected `str`, got `null`"),
        ]),
        ({"name": "okay", "table": {"long": 1}}, [("/table/long", "expected `str` of length <= 3")]),
        ({"name": "okay", "table": {"a": "1"}}, [("/table/a", "expected `int`, got `str`")]),
        ({"name": "okay", "shape": {"kind": "round", "radius": "x"}}, [
            ("/shape/radius", "expected `int`, got `str`"),
        ]),
        ({"name": "okay", "shape": {"kind": "square", "radius": 1}}, [
            ("/shape/radius", "unknown field"), ("/shape/side", "required, but missing"),
        ]),
        ({"name": "okay", "shape": {"kind": CANARY}}, [("/shape", "must be one of: round, square")]),
        ({"name": "okay", "number_or_text": []}, [("/number_or_text", "expected `int | str`, got `array`")]),
        ([], [("", "expected `object`, got `array`")]),
        (None, [("", "expected `object`, got `null`")]),
        (CANARY, [("", "expected `object`, got `str`")]),
    ],
)  # fmt: skip
def test_a_fault_has_its_place_and_no_value(value, expected):
    """Each fault is told by JSON pointer and by what was expected, never by what was there."""
    found, faults = convert(value, Whole)
    assert found is None
    assert expected == [(fault.pointer, fault.detail) for fault in faults]
    assert CANARY not in repr(faults)


def test_all_faults_are_told_at_once():
    """However deep they lie, no fault hides another one."""
    value = {
        "name": 7,
        "bcx": 1,
        "kind": "huge",
        "part": {"size": 0, "label": "too long"},
        "parts": [{"size": 1}, {"label": 1}],
        "shape": {"kind": "round"},
        "table": {"a": None, "b": 1},
    }
    _, faults = convert(value, Whole)
    expected = {
        "/bcx",
        "/name",
        "/kind",
        "/part/size",
        "/part/label",
        "/parts/1/size",
        "/parts/1/label",
        "/shape/radius",
        "/table/a",
    }
    assert expected == {fault.pointer for fault in faults}
    assert len(expected) == len(faults)


def test_what_is_right_is_returned_without_faults():
    """A right value becomes the struct, its tagged and optional parts included."""
    value = {"name": "okay", "shape": {"kind": "square", "side": 2}, "parts": [{"size": 3}], "part": None}
    found, faults = convert(value, Whole)
    assert [] == faults
    assert Whole(name="okay", shape=Square(2), parts=(Part(3),)) == found


def test_pointers_use_the_names_of_the_outside():
    """A renamed field is told by the name that the sender knows."""
    _, faults = convert({"from": 1, "from_": 2}, Renamed)
    assert {"/from", "/from_"} == {fault.pointer for fault in faults}


def test_a_struct_that_allows_more_is_told_no_unknown_fields():
    """Unknown fields are faults only where the struct forbids them."""
    assert (Open(1), []) == convert({"size": 1, "more": 2}, Open)


def test_a_hooks_own_words_are_the_fault():
    """What a hook raises about its value is told at the value's place, beside all other faults."""

    def hook(_kind, _value):
        raise ValueError("give it by reference")

    _, faults = convert({"seal": CANARY, "other": "x"}, Sealing, dec_hook=hook)
    assert [
        Fault("/seal", "give it by reference"),
        Fault("/other", "expected `int`, got `str`"),
    ] == faults


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("name", "/a/name"),
        (0, "/a/0"),
        ("", "/a/"),
        ("x/y", "/a/x~1y"),
        ("x~y", "/a/x~0y"),
        ("~1", "/a/~01"),
        ("a\r\nb", "/a/a??b"),
        ("\x00\x7f\u202eé", "/a/????"),
        ("x" * 65, "/a/" + "x" * 64),
        ("/" * 70, "/a/" + "~1" * 64),
    ],
)
def test_a_step_of_a_pointer_is_escaped_and_short(step, expected):
    """A pointer repeats at most 64 printable characters of a name, escaped as RFC 6901 wants."""
    assert expected == join("/a", step)


def test_faults_beyond_a_hundred_are_not_collected():
    """A hostile body cannot make us write a fault for each of its thousands of items."""
    _, faults = convert({"name": "okay", "words": [1] * 5000}, Whole)
    assert len(faults) <= 200


@pytest.mark.parametrize(
    "value",
    [
        {"name": "okay", "words": [1] * 200_000},
        {"name": "okay", "parts": [{}] * 200_000},
        {"name": "okay", "parts": [{"size": 1}] * 30_000},
    ],
    ids=["wrong items", "empty objects", "right items, too many"],
)
def test_a_huge_value_is_judged_in_a_moment(value):
    """The time to find the faults is bounded, however many a hostile body has."""
    began = time.process_time()
    _, faults = convert(value, Whole)
    assert faults
    assert time.process_time() - began < 0.1
