"""What is written without the engine is what the engine would have written, to the last character."""

import math
import random
from collections import Counter
from pathlib import Path

import pytest

from postroom.templates import RenderError, Template, TemplateSet
from postroom.templates.direct import LONGEST_SHOWN, MOST_DEPTH, MOST_TAGS, BeyondError, Direct
from postroom.templates.engine import MAX_OUTPUT_BYTES, EngineError, Program, fuel_for
from postroom.templates.filters import OWN_FILTERS
from postroom.templates.formats import LOCALE_FILTERS
from postroom.templates.language import Literal, Outline, outline
from postroom.templates.prepare import _made

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / "templates", ROOT / "bench" / "templates"]
FILTERS = [*OWN_FILTERS, *LOCALE_FILTERS, "pluralize"]
CONSTANTS = ["true", "True", "false", "False", "none", "None"]
MANIFEST = """
description = "Some text."
[variables.name]
type = "string"
example = "Ada"
[variables.link]
type = "string"
default = "https://a.example/"
"""


def made(source, *, as_html=True):
    """Return a source as a template has it: with its program, and what may write without it."""
    found = outline(source)
    assert [] == found.problems
    program = Program(source, as_html=as_html, longest_repeated=found.longest_repeated)
    return _made("body.html", program, found)


def written(piece, variables):
    """Return what is written without the engine, or None."""
    return None if piece.direct is None else piece.direct.render({"locale": "en", **variables})


def rendered(render, variables):
    """Return a rendering's text, or why it was refused."""
    try:
        return render({"locale": "en", **variables})
    except EngineError as error:
        return error.reason, error.line, error.detail


def assert_written(expected, source, variables, *, as_html=True):
    """Hold that the engine makes this text, and that it is written without it."""
    piece = made(source, as_html=as_html)
    assert expected == rendered(piece.program.render, variables)
    assert expected == written(piece, variables)


def assert_left(source, variables, *, as_html=True):
    """Hold that this is for the engine to say, and that it does; return what it says."""
    piece = made(source, as_html=as_html)
    assert None is written(piece, variables)
    said = rendered(piece.program.render, variables)
    assert said == rendered(piece.render, variables)
    return said


class Author:
    """Writes templates and variables by chance, of all that may be written without the engine, and a little more."""

    names = "a b out names n item items show own by_locale filtered listed len lambda write".split()
    fields = "x title items keys true loop lambda".split()
    blanks = ("", "", " ", "  ", "\n", "\t", " \n", "\n  ", "\n\n", "\n\t\n ")
    words = (*"a'\"\\%-+}é\x00", " a ", "\na\n", "<p>", '"""', "\\n", "}}", "%}", "#}", "{names}")
    odd = ("\r", "\r\n", "\xa0", "\x0b", "\x1c", "\x85", "\u2028", "\u3000", "\u200b")
    texts = (
        *("", "Ada", "<b>", "a & b", "\"'`", "a/b", "</p>'", "\n", " x ", "ß", "0", "{{ a }}", "2026-03-09"),
        *("https://x.example/?a&b", "x" * 101, "<" * LONGEST_SHOWN),
    )
    numbers = (0, 1, -7, 2**53 + 1, 2**63 - 1)
    others = (-(2**63), 2**63, True, None, 2.5, -0.0, "x" * (1 + LONGEST_SHOWN))

    def __init__(self, seed):
        self._chance = random.Random(seed)
        self._one = self._chance.choice

    def _may(self, share):
        return self._chance.random() < share

    def _text(self):
        kinds = [self.blanks, self.blanks, self.words, self.odd if self._may(0.04) else self.blanks]
        return "".join(self._one(self._one(kinds)) for _ in range(self._chance.randrange(4)))

    def _tag(self, form, inside):
        sign, sign_behind = (self._one(["", "", "", "-", "+"]) for _ in range(2))
        blank, blank_behind = (self._one(["", " ", " ", "\n"]) for _ in range(2))
        return f"{{{form[0]}{sign}{blank}{inside}{blank_behind}{sign_behind}{form[1]}}}"

    def _comment(self):
        signs = self._one(["", "", "-", "+", "--", "-+", "+-", "++", "- -", "+ c", "c -"])
        return f"{{#{signs}#}}" if self._may(0.5) else self._tag("##", self._one(["c", "{{ a", "%}", "\n"]))

    def _value(self, item):
        if item and self._may(0.3):
            return self._one(["loop.index", "loop.first", "loop.last"])
        name = item if item and self._may(0.5) else self._one(self.names)
        name = self._one([*CONSTANTS, "loop"]) if self._may(0.02) else name
        return f"{name}.{self._one(self.fields)}" if name == item or self._may(0.03) else name

    def _arguments(self):
        texts = [
            self._one(["''", '"n"', "'<b> & '", '"\'"', "'%}'", "'\n'", "'\\\\'", "3"]) for _ in range(3)
        ]
        return "" if self._may(0.5) else f"({', '.join(texts[: self._chance.randrange(4)])})"

    def _output(self, item):
        chosen = f" | {self._one(FILTERS)}{self._arguments()}" if self._may(0.08) else ""
        value = self._value(item).replace("loop.first", "loop.index")
        return self._tag("{}", value + chosen)

    def _if(self, depth, item):
        def ask():
            return self._one(["", "", "not "]) + self._value(item)

        out = self._tag("%%", f"if {ask()}") + self.body(depth + 1, item)
        while self._may(0.3):
            out += self._tag("%%", f"elif {ask()}") + self.body(depth + 1, item)
        if self._may(0.4):
            out += self._tag("%%", "else") + self.body(depth + 1, item)
        return out + self._tag("%%", "endif")

    def _for(self, depth):
        item = self._one(self.names)
        name = self._one(["list"] * 15 + [item])
        inside = self.body(depth + 1, item)
        return self._tag("%%", f"for {item} in {name}") + inside + self._tag("%%", "endfor")

    def body(self, depth=0, item=""):
        """Write a file, or what is inside a block."""
        out = self._text()
        for _ in range(self._chance.randrange(5) if depth == 0 else self._one([0, 1, 1, 2])):
            kind = self._chance.random()
            if kind < 0.15:
                out += self._comment()
            elif kind < 0.4 and depth < 3:
                out += self._if(depth, item)
            elif kind < 0.6 and not item:
                out += self._for(depth)
            else:
                out += self._output(item)
            out += self._text()
        return out

    def _scalar(self):
        kind = self._chance.random()
        return self._one(self.texts if kind < 0.7 else self.numbers if kind < 0.97 else self.others)

    def _object(self):
        return {field: self._scalar() for field in self.fields if not self._may(0.02)}

    def variables(self):
        """Make values for every name, most of them such as can be shown."""
        found = {
            name: self._scalar() if self._may(0.97) else self._one([{}, [], self._object()])
            for name in self.names
        }
        found |= {name: self._scalar() for name in CONSTANTS} | {"loop": self._object()}
        return {**found, "list": [self._object() for _ in range(self._one([0, 1, 2, 3]))]}


def test_nothing_is_written_but_what_the_engine_writes():
    """Templates and variables by chance: the same text, or none; and most of them are written indeed."""
    seen = Counter()
    for seed in range(1_500):
        author = Author(seed)
        source = author.body()
        piece = made(source, as_html=seed % 2 == 0)
        for variables in (author.variables(), author.variables(), author.variables()):
            text = written(piece, variables)
            seen["beyond" if piece.direct is None else "left" if text is None else "written"] += 1
            if text is not None:
                assert rendered(piece.program.render, variables) == text, (seed, source, variables)
    assert seen["written"] > 0.6 * seen.total(), seen
    assert min(seen["beyond"], seen["left"]) > 0.02 * seen.total(), seen


def contexts(template):
    """Yield the pieces of a template in each locale, with everything given and with what is required only."""
    for locale, pieces in template._pieces.items():
        for spoken in (locale, "ja", "ar"):
            for variables in (template.examples, template.least_examples):
                for part, piece in pieces.items():
                    yield f"{part} {spoken}", piece, template._context(variables, spoken)


@pytest.mark.parametrize("folder", FOLDERS, ids=["shipped", "bench"])
def test_an_order_is_written_without_the_engine(folder):
    """The template that `make bench` sends, and the shipped one: every part, in every language."""
    seen = list(contexts(TemplateSet.load_folder(folder).get("order_shipped")))
    assert len(seen) >= 3 * 3 * 2
    for place, piece, context in seen:
        assert piece.program.render(context) == written(piece, context), place


def test_an_order_is_made_without_the_engine(monkeypatch):
    """Once it is loaded, nothing of its mail is rendered by it, whether it is tried or made."""
    template = TemplateSet.load_folder(ROOT / "bench" / "templates").get("order_shipped")
    pieces, context = template._pieces["en"], template._context(template.examples, "en")
    expected = [pieces[part].program.render(context) for part in ("html", "text")]
    monkeypatch.delattr(Program, "render")
    template.try_render(template.examples)
    content = template.render(template.examples)
    assert expected == [content.html, content.text]


def test_what_ships_is_written_as_the_engine_writes_it():
    """All of it, in every language, with everything given and with the least."""
    templates = TemplateSet.load_folder(ROOT / "templates")
    for name in templates.names:
        for place, piece, context in contexts(templates.get(name)):
            assert piece.program.render(context) == written(piece, context), (name, place)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a\n  {% if a %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc\n"),
        ("  {% if a %}b{% endif %}", "b"),
        ("a  {% if a %}b  {% endif %}\n\nc", "a  b  \nc"),
        ("{{ a }}  {% if a %}b{% endif %}", "A  b"),
        ("  {# c #}\nb", "b"),
        ("{# c #}  {# c #}\nb", "  b"),
        ("{% if a %}\n  {% if a %}\nb{% endif %}{% endif %}", "b"),
        ("a\n  {{ a }}\n  b", "a\n  A\n  b"),
        ("a\n {%- if a -%}\n b \n{%- endif -%}\n c", "abc"),
        ("a \n\t{{- a -}}\t\n b", "aAb"),
        ("a \n{#- c -#} \nb", "ab"),
        ("a\n  {%+ if a +%}\n  b{% endif %}", "a\n  \n  b"),
        ("a\n  {#+ c +#}\nb", "a\n  \nb"),
        ("{{+ a +}}\nb", "A\nb"),
        ("a {#-#}\n b", "a b"),
        ("a\n {#+#}\n b", "a\n  b"),
        ("a {#--#}\n b", "ab"),
        ("a {#++#}\n b", "a \n b"),
        ("{{ a -}}{# c #} b", "A b"),
        ("a\xa0b {% if a %}\u2028{% endif %}c", None),
        ("\xa0{% if a %}b{% endif %}", None),
        ("a{{ a -}}\r b", None),
        ("{% if a %}\r\nb{% endif %}", None),
        ("a\x1c{{- a }}", None),
        ("a\r{{ a }}\xa0b", "a\rA\xa0b"),
    ],
)
def test_the_white_space_around_tags(source, expected):
    """Lines of statements and comments leave nothing, signs take or keep all; what is odd is the engine's to trim."""
    if expected is None:
        assert isinstance(assert_left(source, {"a": "A"}), str)
    else:
        assert_written(expected, source, {"a": "A"})


def test_every_character_is_escaped_alike():
    """As a value by itself, beside a slash, and as text of the template; in HTML and in text."""
    characters = [chr(point) for point in range(0x3000)]
    for as_html in (True, False):
        piece = made("{{ a }}|{{ b }}", as_html=as_html)
        for a in characters:
            variables = {"a": a, "b": f"{a}/{a}"}
            assert piece.program.render(variables) == written(piece, variables)
    assert_written("&lt;&gt;&amp;&quot;&#x27;`/\x00", "{{ a }}", {"a": "<>&\"'`/\x00"})
    assert_written("<>&\"'`/\x00", "{{ a }}", {"a": "<>&\"'`/\x00"}, as_html=False)
    source = "".join(characters).replace("{", "")
    assert_written(source, source, {})


@pytest.mark.parametrize("value", [0, -1, 2**53 + 1, 2**63 - 1, 1 - 2**63, "", "x" * LONGEST_SHOWN, "½"])
@pytest.mark.parametrize("as_html", [True, False])
def test_texts_and_integers_are_shown(value, as_html):
    """Those that are usual."""
    assert_written(str(value), "{{ a }}", {"a": value}, as_html=as_html)
    assert_written(str(value), "{% for a in b %}{{ a }}{% endfor %}", {"b": [value]}, as_html=as_html)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "shows a value that is not there; only text and numbers can be shown"),
        (True, "shows true or false; only text and numbers can be shown"),
        (["a"], "shows a whole list; only text and numbers can be shown"),
        ({"a": "b"}, "shows a whole object; only text and numbers can be shown"),
        (2.5, "2.5"),
        (-0.0, "-0.0"),
        (2**63, str(2**63)),
        (-(2**63), str(-(2**63))),
        ("x" * (1 + LONGEST_SHOWN), "x" * (1 + LONGEST_SHOWN)),
    ],
)
@pytest.mark.parametrize(
    "source", ["{{ a }}", "{% if a %}{% endif %}{{ o.a }}", "{% for a in l %}{{ a }}{% endfor %}"]
)
def test_other_values_are_shown_or_refused_by_the_engine(source, value, said):
    """With the reason that it has always given."""
    found = assert_left(source, {"a": value, "o": {"a": value}, "l": [value]})
    assert said == (found if isinstance(found, str) else found[0])


@pytest.mark.parametrize(
    "value", [0, 1, -1, 0.0, -0.0, math.nan, 2**70, "", "0", "\x00", [], [0], {}, {"a": 0}, True, False, None]
)
def test_what_is_there_and_what_is_empty(value):
    """Every value is asked for as the engine asks; `not` turns it round, `elif` comes to its turn, `else` last."""
    yes, no = ("y", "") if value else ("", "y")
    variables = {"a": value, "o": {"a": value}, "off": "", "on": 1}
    assert_written(yes, "{% if a %}y{% endif %}", variables)
    assert_written(no, "{% if not o.a %}y{% endif %}", variables)
    assert_written(yes or "n", "{% if off %}z{% elif a %}y{% else %}n{% endif %}", variables)
    assert_written(no or "z", "{% if not a %}y{% elif on %}z{% elif on %}{% else %}n{% endif %}", variables)


def test_lists_are_gone_through():
    """One after the other: with the place in it, over the variable of the same name, which is there again behind it."""
    source = (
        "{% for a in l %}{% if not loop.first %}, {% endif %}{{ loop.index }}{{ a.t }}{% if loop.last %}."
        "{% endif %}{% endfor %}{{ a }}{% for l in l %}{{ l.t }}{{ a }}{% endfor %}"
    )
    items = [{"t": "x"}, {"t": "y"}, {"t": 3}]
    assert_written("1x, 2y, 33.AxAyA3A", source, {"a": "A", "l": items})
    assert_written("1x.AxA", source, {"a": "A", "l": items[:1]})
    assert_written("A", source, {"a": "A", "l": []})


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for a in l %}{{ a.u }}{% endfor %}", "uses something undefined"),
        ("{% if o.u %}x{% endif %}", "uses something undefined"),
        ("{% if none_at_all %}x{% endif %}", "uses something undefined"),
        ("{% for a in l %}{% endfor %}{{ a }}", "uses something undefined"),
        ("{% for a in l %}{{ loop }}{% endfor %}", "shows a whole object"),
        ("{% for a in l %}{{ loop.first }}{% endfor %}", "shows true or false"),
        ("{{ s | number }}", "the number filter takes a number"),
        ("{{ s | money }}", "the money filter takes a variable of the type money"),
        ("{{ huge | number }}", "cannot be rendered (InvalidOperation)"),
        ("{{ s | default }}", "cannot be rendered (TypeError)"),
        ("{{ s | replace }}", "cannot be rendered (TypeError)"),
    ],
)
def test_what_cannot_be_rendered_is_refused_by_the_engine(source, reason):
    """Fields that are not there, filters that refuse or fail: each with the engine's own reason."""
    found = assert_left(source, {"l": [{"t": "x"}], "o": {}, "s": "x", "huge": 10**40})
    assert isinstance(found, tuple)
    assert found[0].startswith(reason)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% if n == 3 %}x{% endif %}", "x"),
        ("{% if n and s %}x{% endif %}", "x"),
        ("{% if n is odd %}x{% endif %}", "x"),
        ("{% if not not n %}x{% endif %}", "x"),
        ("{% set s = 'z' %}{{ s }}", "z"),
        ("{{ s ~ n }}", "s3"),
        ("{{ s if n }}", "s"),
        ("{{ 'a' }}{{ 3 }}", "a3"),
        ("{% if o.o.a %}x{% else %}y{% endif %}", "y"),
        ("{% if o['a'] %}x{% else %}y{% endif %}", "y"),
        ("{{ s | truncate(5) }}", "s"),
        ("{{ s | default(n) }}", "s"),
        ("{{ s | default('\\'') }}", "s"),
        ("{{ n | pluralize('n') }}", "s"),
        ("{{ l | pluralize }}", "s"),
        ("{{ s | upper | lower }}", "s"),
        ("{{ s | length }}", "1"),
        ("{% for a in l %}{{ loop.index0 }}{% endfor %}", "01"),
        ("{% for a in l %}{% for a in l %}x{% endfor %}{% endfor %}", "xxxx"),
        ("{% for a in l %}x{% else %}y{% endfor %}", "xx"),
        ("{% for a in l if a.t %}{{ a.t }}{% endfor %}", "xy"),
        ("{% for a in o %}{{ a }}{% endfor %}", "ao"),
        ("{% for a in s %}{{ a }}{% endfor %}", "s"),
    ],
)
def test_what_does_more_is_rendered_by_the_engine(source, expected):
    """Comparing, setting, building, filters with arguments that are no plain texts, loops in loops and over anything but a list."""
    variables = {"n": 3, "s": "s", "o": {"a": "", "o": {"a": ""}}, "l": [{"t": "x"}, {"t": "y"}]}
    assert expected == assert_left(source, {**variables, "3": "no name", "'a'": "no name"})


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_is_no_variable(name):
    """Also where a variable has its name."""
    for source in (f"{{{{ {name} }}}}", f"{{% if {name} %}}x{{% endif %}}", f"{{{{ {name}.a }}}}"):
        assert "Ada" != assert_left(source, {name: "Ada"})
    assert_written("Ada", f"{{{{ o.{name} }}}}", {"o": {name: "Ada"}})


def test_the_loop_is_no_variable():
    """Inside a loop its name is the loop's; outside of any, a variable's, and for the engine to look up."""
    variables = {"l": ["x"], "loop": {"title": "Ada", "index": "Bob"}}
    assert (
        "uses something undefined"
        == assert_left("{% for a in l %}{{ loop.title }}{% endfor %}", variables)[0]
    )
    assert_written("1", "{% for a in l %}{{ loop.index }}{% endfor %}", variables)
    assert "Bob" == assert_left("{{ loop.index }}", variables)


@pytest.mark.parametrize("name", FILTERS)
def test_filters_without_arguments(name):
    """Each makes the same of every value, or leaves it; and each is called without the engine for some."""
    values = (
        *("", "Ada Lovelace", " <b> ", "a/b & c", "https://a.example/?b&c", "2026-03-09", "ß" * 90),
        "x" * LONGEST_SHOWN,
        *(0, 1234567, -(2**63), 2.0, -0.0, 0.1, 1234.5, 2.0**62 + 1536, 1e22, math.inf, math.nan, True, None),
        *([], ["a", 2, -0.0], ["", None], {}, {"amount": "1234.50", "currency": "EUR"}),
    )
    seen = Counter()
    for as_html in (True, False):
        piece = made(f"{{{{ a | {name} }}}}", as_html=as_html)
        for value in values:
            for locale in ("en", "de", "ar", "ja", "fr-CH"):
                text = written(piece, {"a": value, "locale": locale})
                seen[text is not None] += 1
                if text is not None:
                    assert rendered(piece.program.render, {"a": value, "locale": locale}) == text
    assert seen[True] or name in ("default", "replace")


@pytest.mark.parametrize(
    ("source", "value", "expected"),
    [
        ("{{ a | default('<none>') }}", None, "&lt;none&gt;"),
        ("{{ a | default('none') }}", "<b>", "&lt;b&gt;"),
        ("{{ a | default('') }}", None, ""),
        ('{{ a | default("it\'s {names}") }}', None, "it&#x27;s {names}"),
        ("{{ a | replace('b', \"'\") }}", "abc", "a&#x27;c"),
        ("{{ a | join(', ') }}", ["x", 2], "x, 2"),
        ("{{ a | date('short') }}", "2026-03-09", "3/9/26"),
        ("{{ a | pluralize }}", 1, ""),
        ("{{ a | pluralize }}", 2, "s"),
        ("{{ a | pluralize('', 'n') }}", 0, "n"),
        ("{{ a | pluralize('', 'n') }}", 1, ""),
        ("{{ a | pluralize('y', 'ies') }}", -1, "ies"),
    ],
)
def test_filters_with_texts_as_arguments(source, value, expected):
    """As the engine applies them; what they give is escaped like anything that is shown."""
    assert_written(expected, source, {"a": value, "locale": "en"})


def test_filters_take_no_more_than_the_engine_lets_them():
    """What is long counts against the work of all filters together, so it is the engine's to filter."""
    assert_written("", "{{ a | join }}", {"a": [""] * LONGEST_SHOWN})
    assert "" == assert_left("{{ a | join }}", {"a": [""] * (1 + LONGEST_SHOWN)})
    assert "x…" == assert_left("{{ a | truncate }}", {"a": "x " * LONGEST_SHOWN})[-2:]


def test_fuel_is_never_short_of_what_is_written():
    """Whatever costs steps: items, tags, the texts between comments, and a long text in a loop, though it is empty."""
    long = "x" * 1_000_000
    assert fuel_for(len(long)) < 100
    loop = "{% for i in l %}" + long + "{% endfor %}"
    assert None is made(loop + "{{ a }}" * 100).direct
    comments = "{% for i in l %}" + "a{##}" * 990 + "{% endfor %}"
    for source, counts in (
        (comments, range(0, 240, 8)),
        ("{% for i in l %}{{ i }}{% endfor %}", range(0, 5_000, 500)),
    ):
        piece = made(source)
        texts = {count: written(piece, {"l": [1] * count}) for count in counts}
        assert set(map(type, texts.values())) == {str, type(None)}
        for count, text in texts.items():
            if text is not None:
                assert rendered(piece.program.render, {"l": [1] * count}) == text


def test_what_may_be_too_large_is_left_to_the_engine():
    """Characters of four bytes make a part too large four times as soon."""
    limit = MAX_OUTPUT_BYTES // 4
    assert_written("😀" * limit, "😀" * limit, {})
    assert "x" * (limit + 1) == assert_left("x" * (limit + 1), {})
    assert "makes more than 1000000 bytes" == assert_left("😀" * (limit + 1), {})[0]


def test_many_tags_and_deep_blocks():
    """As many as Python bears easily are written; with more, the engine does it."""
    assert_written("y", "{% if a %}" + "{% elif a %}" * (MOST_TAGS - 3) + "{% else %}y{% endif %}", {"a": ""})
    assert_written("A" * MOST_TAGS, "{{ a }}" * MOST_TAGS, {"a": "A"})
    assert "A" * (1 + MOST_TAGS) == assert_left("{{ a }}" * (1 + MOST_TAGS), {"a": "A"})
    deep = MOST_DEPTH - 1
    assert_written("y", "{% if a %}" * deep + "y" + "{% endif %}" * deep, {"a": "A"})
    assert "y" == assert_left("{% if a %}" * (1 + deep) + "y" + "{% endif %}" * (1 + deep), {"a": "A"})


@pytest.mark.parametrize(
    "text",
    [
        *(
            "'",
            '"',
            "\\",
            "\\'",
            '\\"',
            "'''",
            '"""',
            "\\n",
            "\n",
            "\r",
            "\x00",
            "\u2028",
            "{names}",
            "{{",
            "%s",
        ),
        *("'] + [print(names)] + ['", "\n return []\n", "\\x41\\N{BULLET}", "#", "\\\n", "\ufeff", "😀"),
    ],
)
def test_no_text_of_a_template_becomes_code(text):
    """Neither what stands between tags nor what a variable says."""
    if "{{" not in text:
        assert_written(f"|{text}|A|{text}|", f"|{text}|{{{{ a }}}}|{text}|", {"a": "A"}, as_html=False)
    assert_written(text, "{% for i in l %}{{ i }}{% endfor %}", {"l": [text]}, as_html=False)


def test_no_name_of_a_template_becomes_code():
    """Names of Python and of what is made of a template are names like others."""
    for (
        name
    ) in "out names n item items show own by_locale filtered listed len print lambda import None_ _".split():
        variables = {name: "A", "l": [{name: "x"}, {name: "y"}]}
        assert_written("A", f"{{{{ {name} }}}}{{% if not {name} %}}n{{% endif %}}", variables)
        loop = f"{{% for {name} in l %}}{{{{ {name}.{name} }}}}{{{{ loop.index }}}}{{% endfor %}}{{{{ {name} }}}}"
        assert_written("x1y2A", loop, variables)
    assert "not there" == assert_left("{% if __builtins__ is defined %}x{% else %}not there{% endif %}", {})
    assert "uses something undefined" == assert_left("{{ __builtins__ }}{{ a.__class__ }}", {"a": "x"})[0]


@pytest.mark.parametrize(
    "parts", [["{", "{ name }}"], ["{", "% if name %}{{ name }}{", "% endif %}"], ["{", "# a #}Ada"]]
)
def test_texts_that_become_a_tag_where_they_meet(parts):
    """What counts is what the engine reads, not what the file was cut into."""
    direct = Direct(Outline([Literal(text) for text in parts]), as_html=True)
    program = Program("".join(parts), as_html=True, longest_repeated=0)
    assert "Ada" == program.render({"name": "Ada"}) == direct.render({"name": "Ada"})


def test_a_text_that_cannot_be_read_is_beyond():
    """It is for the engine to say."""
    with pytest.raises(BeyondError):
        Direct(Outline([Literal("{"), Literal("{ name")]), as_html=True)


def test_one_that_disagrees_with_the_engine_writes_nothing_any_more():
    """What is installed may be another engine than the one that this was written after."""
    piece = made("{{ a }}")
    piece.direct.compare({"a": "A"}, "A")
    piece.direct.compare({"a": None}, "whatever is for the engine to say")
    assert "A" == written(piece, {"a": "A"})
    piece.direct.compare({"a": "A"}, "another text")
    assert None is written(piece, {"a": "A"})
    assert "A" == piece.render({"a": "A"})


def test_a_template_is_compared_when_it_is_loaded(monkeypatch):
    """One whose examples come out otherwise leaves all of its mail to the engine."""
    monkeypatch.setattr(Program, "render", lambda _self, context: f"other {context['name']}")
    template = Template("sample", {"template.toml": MANIFEST, "subject.txt": "x", "body.txt": "{{ name }}"})
    assert "other Bob" == template.render({"name": "Bob"}).text


def test_what_the_engine_refuses_is_a_refusal_of_the_template():
    """Its reason and its place are those that they were."""
    files = {"template.toml": MANIFEST, "subject.txt": "x", "body.txt": "\n{{ link | url }}"}
    template = Template("sample", files)
    assert "\nhttps://b.example/" == template.render({"name": "x", "link": "https://b.example/"}).text
    with pytest.raises(RenderError, match=r"body\.txt: the url filter lets only"):
        template.render({"name": "x", "link": "javascript:x"})
