"""What a trial at acceptance says is what rendering says, whatever was tried before."""

import random
from pathlib import Path

import pytest

from postroom.templates import RenderError, Template, TemplateSet
from postroom.templates.engine import EngineError, Program
from postroom.templates.prepare import Piece

SHIPPED = Path(__file__).parents[2] / "templates"
MANIFEST = """
description = "Some that may be missing."

[variables]
name = { type = "string", example = "Ada" }
first = { type = "string", required = false, example = "x" }
second = { type = "string", required = false, example = "y" }
link = { type = "string", example = "https://shop.example/" }
count = { type = "integer", example = 2 }

[variables.items]
type = "list"
default = []

[variables.items.items]
type = "object"
fields = { title = { type = "string" }, note = { type = "string", required = false } }
"""
RIGHT = {"name": "Ada", "link": "https://shop.example/", "count": 2}


def make(body, subject="Hello"):
    return Template("sample", {"template.toml": MANIFEST, "subject.txt": subject, "body.html": body})


def renders(action, *args):
    """Return whether a rendering or a trial succeeds."""
    try:
        action(*args)
    except RenderError:
        return False
    return True


@pytest.fixture
def pieces(monkeypatch):
    """The files of the pieces that were rendered, in order, by the engine or without it."""
    seen = []
    render = Piece.render

    def note(self, context):
        seen.append(self.file)
        return render(self, context)

    monkeypatch.setattr(Piece, "render", note)
    return seen


def test_a_shape_that_has_rendered_is_not_rendered_again(pieces):
    """The second message like the first is not rendered at all; one with something missing is another shape."""
    template = make(
        "{% if first %}{{ first | upper }}{% endif %}{% for item in items %}{{ item.title }}{% endfor %}"
    )
    items = [{"title": "a"}, {"title": "b"}]
    template.try_render({**RIGHT, "items": items})
    pieces.clear()
    template.try_render({**RIGHT, "name": "Bob", "items": [{"title": "other"}] * 3})
    assert not pieces
    template.try_render({**RIGHT, "first": "x", "items": items})
    assert ["body.html", "body.html"] == pieces


def test_what_is_missing_is_found_after_any_number_of_right_ones():
    """One variable without another that its text needs is refused, also where all others have rendered."""
    template = make("{% if first %}{{ second | upper }}{% endif %}")
    for _ in range(3):
        assert renders(template.try_render, {**RIGHT, "first": "x", "second": "y"})
        assert renders(template.try_render, RIGHT)
        assert renders(template.try_render, {**RIGHT, "second": "y"})
        assert not renders(template.try_render, {**RIGHT, "first": "x"})
        assert renders(template.try_render, {**RIGHT, "first": ""})


@pytest.mark.parametrize(
    ("body", "right", "wrong"),
    [
        ("{{ link | url }}", {}, {"link": "javascript:x"}),
        ("{% if count > 2 %}{{ first }}{% endif %}", {}, {"count": 3}),
        ("{% set n = first %}{% if count == 7 %}{{ n }}{% endif %}", {}, {"count": 7}),
        ("{% if name == 'x' %}{{ first }}{% endif %}", {}, {"name": "x"}),
        ("{% if count is even %}a{% else %}{{ first }}{% endif %}", {}, {"count": 3}),
        ("{% for i in range(count) %}x{% endfor %}", {}, {"count": 100_000}),
        (
            "{% for item in items %}{% if item.note %}{{ first }}{% endif %}{% endfor %}",
            {"items": [{"title": "a"}]},
            {"items": [{"title": "a"}, {"title": "b", "note": "c"}]},
        ),
        (
            "{% for item in items %}{{ item.note }}{% endfor %}",
            {"items": [{"title": "a", "note": "b"}]},
            {"items": [{"title": "a"}]},
        ),
    ],
)
def test_what_depends_on_a_value_is_rendered_each_time(body, right, wrong):
    """A right message before it makes no wrong one pass."""
    template = make(body)
    for _ in range(2):
        assert renders(template.try_render, {**RIGHT, "first": "x", **right})
        assert renders(template.try_render, {**RIGHT, "first": "x", **right})
        assert not renders(template.try_render, {**RIGHT, **wrong})


def test_a_subject_is_judged_each_time():
    """It may turn out empty though its variables are there."""
    template = make("x", subject="{{ name }}")
    assert renders(template.try_render, RIGHT)
    assert not renders(template.try_render, {**RIGHT, "name": "  "})


def test_a_subject_of_words_and_variables_is_judged_by_its_length(pieces):
    """Whatever its variables say, it is not empty; what comes near the limit is rendered."""
    template = make("x", subject="Order {{ name }}: {{ count }}")
    template.try_render(RIGHT)
    pieces.clear()
    assert renders(template.try_render, {**RIGHT, "name": "  "})
    assert not pieces
    for length in (950, 988, 989, 990, 991, 2000):
        named = {**RIGHT, "name": "x" * length}
        assert renders(template.render, named) == renders(template.try_render, named)
    assert not renders(template.try_render, {**RIGHT, "name": "x" * 989, "count": 10})


def test_a_message_too_large_is_refused_though_its_shape_is_known():
    """Many items, each small, can write more than a part may have."""
    template = make("{% for item in items %}" + "<p>some words</p>" * 100 + "{{ item.title }}{% endfor %}")
    assert renders(template.try_render, {**RIGHT, "items": [{"title": "a"}]})
    assert not renders(template.try_render, {**RIGHT, "items": [{"title": "a"}] * 1000})


@pytest.fixture(scope="module")
def shipped():
    """The templates that come with Postroom."""
    return TemplateSet.load_folder(SHIPPED)


@pytest.mark.parametrize("name", ["login_code", "order_shipped", "password_reset", "welcome"])
def test_a_trial_says_what_rendering_says(shipped, name):
    """For the shipped templates, over messages that leave out and empty this and that."""
    template = shipped.get(name)
    chance = random.Random(7)
    for _ in range(300):
        variables = {
            key: chance.choice([value, "", value]) if template.variables[key].type == "string" else value
            for key, value in template.examples.items()
            if not (template.variables[key].optional and chance.random() < 0.4)
        }
        locale = chance.choice([None, "en", "de", "fr"])
        assert renders(template.render, variables, locale) == renders(template.try_render, variables, locale)


def test_filters_that_are_foreseen_fit_every_value():
    """What fits a type must fit its extremes too."""
    for source, values in {
        "{{ v | number }}{{ v | pluralize }}": (-(2**63), -1, 0, 1, 2**63 - 1),
        "{{ v | date }}": ("0001-01-01", "9999-12-31", "2024-02-29"),
        "{{ v | capitalize }}{{ v | lower }}{{ v | trim }}{{ v | upper }}": (
            "",
            " ",
            "ß",
            "\n",
            "x" * 10_000,
        ),
    }.items():
        program = Program(source, as_html=True, longest_repeated=0)
        for value in values:
            for locale in ("en", "de", "ar", "ja"):
                try:
                    program.render({"v": value, "locale": locale})
                except EngineError as error:
                    pytest.fail(f"{source} {value!r:.20} {locale}: {error.reason}")
