"""The quick yes to variables: it never says yes where the full judgement finds a fault."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.templates.checks import MAX_TOTAL_BYTES, object_checker, total_faults
from postroom.templates.quick import quick_judge
from postroom.templates.variables import Variable

TEXT = Variable(type="string", max_length=12)
FIELDS = {
    "class": TEXT,
    "title": Variable(type="string"),
    "count": Variable(type="integer"),
    "wanted": Variable(type="boolean", default=True),
    "day": Variable(type="date", required=False),
    "link": Variable(type="url", required=False),
    "items": Variable(
        type="list",
        items=Variable(type="object", fields={"name": TEXT, "note": Variable(type="string", required=False)}),
    ),
}
RIGHT = {
    "class": "a",
    "title": "An order",
    "count": 3,
    "items": [{"name": "mug"}, {"name": "tea", "note": None}],
}
SHOWN = {"title"}
quick = quick_judge(FIELDS, shown=SHOWN)
full = object_checker(FIELDS, shown=SHOWN)


def is_right(variables: dict[str, Any]) -> bool:
    """Judge in full."""
    found: list[Any] = []
    full(variables, "", found)
    return not (found or total_faults(variables))


def test_right_ones_are_seen():
    """With what is optional, without it, and null for it; words of other languages too."""
    for more in ({}, {"wanted": None}, {"day": "2026-12-31", "link": "https://a.example/"}, {"class": "Zoë"}):
        assert quick is not None
        assert quick(RIGHT | more)
        assert is_right(RIGHT | more)


def test_wrong_ones_are_left_to_the_full_judgement():
    """Each of these has a fault."""
    wrong: list[dict[str, Any]] = [
        {"class": "x" * 13},
        {"class": "a\x00"},
        {"title": "x" * 256},
        {"title": "a\nb"},
        {"count": "3"},
        {"count": True},
        {"count": 2**63},
        {"count": 3.0},
        {"count": None},
        {"wanted": 1},
        {"day": "2026-02-30"},
        {"link": "javascript:alert(1)"},
        {"items": [{"name": "mug", "size": 1}]},
        {"items": [{}]},
        {"items": [{"name": "mug"}] * 1001},
        {"items": {}},
        {"more": 1},
    ]
    for change in wrong:
        assert quick is not None
        assert not quick(RIGHT | change), change
        assert not is_right(RIGHT | change), change
    assert quick is not None
    assert not quick({name: value for name, value in RIGHT.items() if name != "count"})


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**64), 2**64), st.floats(), st.text(max_size=14),
    st.sampled_from(["2026-12-31", "2026-13-01", "https://a.example/", "mailto:a@b.example", "x" * 300]),
)  # fmt: skip
ITEMS = st.lists(st.dictionaries(st.sampled_from(["name", "note", "size"]), VALUES), max_size=3)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*FIELDS, "more"]), st.one_of(VALUES, ITEMS)))
def test_a_quick_yes_is_a_full_one(change: dict[str, Any]):
    """Whatever is changed of right variables."""
    assert quick is not None
    variables = RIGHT | change
    if quick(variables):
        assert is_right(variables)


def test_too_much_together_is_no_quick_yes():
    """The size of all variables is judged in full."""
    assert quick is not None
    much = RIGHT | {"items": [{"name": "mug", "note": "x" * 9_000}] * (MAX_TOTAL_BYTES // 9_000 + 1)}
    assert not quick(much)
    assert not is_right(much)


def test_what_is_not_covered_has_no_quick_way():
    """Money and numbers, and text of a kind inside of lists, are judged in full always."""
    for one in (
        Variable(type="money"),
        Variable(type="number"),
        Variable(type="list", items=Variable(type="date")),
    ):
        assert quick_judge({"one": one}, shown=()) is None
