"""Templates: variables are judged whole, renderings are bounded, files are refused with their lines."""

import time
from datetime import date
from pathlib import Path

import msgspec
import pytest

from postroom.message import Content
from postroom.templates import RenderError, Template, TemplatesError, TemplateSet

SHIPPED = Path(__file__).parents[2] / "templates"
SHIPPED_NAMES = ["login_code", "order_shipped", "password_reset", "welcome"]

MANIFEST = """
description = "A mail to try things with."

[variables.name]
type = "string"
example = "Ada"
"""
EVERY_TYPE = """
description = "One variable of each type."

[variables]
text = { type = "string", max_length = 5, example = "x" }
whole = { type = "integer", example = 1 }
real = { type = "number", example = 1.5 }
flag = { type = "boolean", example = true }
day = { type = "date", example = "2026-03-09" }
link = { type = "url", example = "https://shop.example/" }
mail = { type = "email", example = "ada@shop.example" }
maybe = { type = "string", required = false, example = "y" }
preset = { type = "string", default = "set" }
shown = { type = "string", example = "in the subject" }

[variables.items]
type = "list"
default = []

[variables.items.items]
type = "object"
fields = { price = { type = "number" }, note = { type = "string", required = false } }
"""
RIGHT = {
    "text": "abc",
    "whole": 7,
    "real": 1,
    "flag": False,
    "day": "2026-02-28",
    "link": "mailto:a@b.example",
    "mail": "ada@shop.example",
    "shown": "one line",
}


def make(manifest=MANIFEST, subject="Hello", html=None, text=None, name="sample"):
    files = {"template.toml": manifest, "subject.txt": subject, "body.html": html, "body.txt": text}
    if html is None and text is None:
        files["body.txt"] = "Body"
    return Template(name, {file: content for file, content in files.items() if content is not None})


def faults_of(**files):
    with pytest.raises(TemplatesError) as caught:
        make(**files)
    return [(fault.file, fault.line, fault.message) for fault in caught.value.faults]


@pytest.fixture(scope="module")
def every_type():
    return make(EVERY_TYPE, subject="{{ shown }}")


@pytest.fixture(scope="module")
def shipped():
    return TemplateSet.load_folder(SHIPPED)


# Checking


def test_right_variables_have_no_fault(every_type):
    """Variables of the declared types pass, with the optional ones left out, given, or null."""
    assert [] == every_type.check(RIGHT)
    assert [] == every_type.check(
        {**RIGHT, "maybe": None, "preset": None, "items": [{"price": 1, "note": None}]}
    )
    assert [] == every_type.check({**RIGHT, "text": "a\n\tb", "whole": 2**63 - 1, "items": [{"price": 0.5}]})


def test_missing_unknown_and_wrong_are_told_at_once(every_type):
    """One check names every missing, unknown and wrong variable, at any depth, by its pointer."""
    given = {**RIGHT, "whole": "7", "extra/x": 1, "items": [{"price": 1}, {"price": "2", "sku": "a"}, {}]}
    del given["text"], given["day"]

    found = {fault.pointer: fault.detail for fault in every_type.check(given)}

    assert {
        "/text": "missing: expected a string",
        "/day": 'missing: expected a date like "2026-12-31"',
        "/whole": "expected an integer of at most 64 bits, got a string",
        "/extra~1x": "unknown: expected are text, whole, real, flag, day, link, mail, maybe, preset, shown, items",
        "/items/1/price": "expected a finite number, got a string",
        "/items/1/sku": "unknown: expected are price, note",
        "/items/2/price": "missing: expected a finite number",
    } == found


@pytest.mark.parametrize(
    ("name", "value", "detail"),
    [
        ("text", "abcdef", "expected a string of at most 5 characters"),
        ("text", 7, "expected a string, got an integer"),
        ("text", None, "expected a string, got null"),
        ("text", "a\x00", "expected a string without a control character (U+0000)"),
        ("text", "a\r\n", "expected a string without a carriage return (U+000D)"),
        ("text", "\x1b", "expected a string without a control character (U+001B)"),
        ("text", "\ud800", "expected a string without a lone surrogate (U+D800)"),
        ("shown", "a\nb", "expected a string without a line break (U+000A)"),
        ("shown", "a\u202eb", "expected a string without a bidirectional override or isolate (U+202E)"),
        ("shown", "x" * 256, "expected a string of at most 255 characters"),
        ("maybe", "x" * 10_001, "expected a string of at most 10000 characters"),
        ("whole", True, "expected an integer of at most 64 bits, got a boolean"),
        ("whole", 7.0, "expected an integer of at most 64 bits, got a number"),
        ("whole", 2**63, "expected an integer of at most 64 bits"),
        ("real", "1", "expected a finite number, got a string"),
        ("real", float("inf"), "expected a finite number"),
        ("real", float("nan"), "expected a finite number"),
        ("real", True, "expected a finite number, got a boolean"),
        ("flag", 1, "expected true or false, got an integer"),
        ("flag", "true", "expected true or false, got a string"),
        ("day", "2026-02-30", 'expected a date like "2026-12-31"'),
        ("day", "20260228", 'expected a date like "2026-12-31"'),
        ("day", "2026-02-28T00:00:00", 'expected a date like "2026-12-31"'),
        ("day", date(2026, 2, 28), 'expected a date like "2026-12-31", got something else'),
        ("link", "javascript:alert(1)", "expected an http, https or mailto URL"),
        ("link", " https://x.example", "expected an http, https or mailto URL"),
        ("link", "https://", "expected an http, https or mailto URL"),
        ("link", "//x.example", "expected an http, https or mailto URL"),
        ("link", 'https://x.example/"onx=', "expected an http, https or mailto URL"),
        ("link", "https://x.example/\n", "expected an http, https or mailto URL"),
        ("link", "https://x.example/" + "a" * 5_000, "expected an http, https or mailto URL"),
        ("link", "data:text/html,x", "expected an http, https or mailto URL"),
        ("mail", "ada", "expected an email address"),
        ("mail", "Ada <ada@shop.example>", "expected an email address"),
        ("mail", "a@x.example, b@x.example", "expected an email address"),
        ("items", {}, "expected a list, got an object"),
        ("items", [{"price": 1}] * 1_001, "expected a list of at most 1000 items"),
    ],
)
def test_wrong_values(every_type, name, value, detail):
    """A value of a wrong type, form or size is told with what is expected, and is never repeated."""
    assert [(f"/{name}", detail)] == [
        (fault.pointer, fault.detail) for fault in every_type.check({**RIGHT, name: value})
    ]


def test_faults_never_echo_values(every_type):
    """No fault holds any part of a value."""
    wrong = {name: ["canary"] for name in RIGHT} | {"link": "canary:", "mail": "canary", "items": ["canary"]}
    assert "canary" not in repr(every_type.check(wrong))


def test_faults_are_capped(every_type):
    """A caller that sends a hundred thousand mistakes gets about a hundred back."""
    found = every_type.check({f"x{number}": 1 for number in range(100_000)})
    assert 100 == len(found)
    assert 200 > len(every_type.check({**RIGHT, "items": [1] * 1_000}))


def test_all_variables_together_are_bounded():
    """Many strings, each within its limit, are still refused when they are too much together."""
    template = make(
        MANIFEST
        + 'max_length = 20000\n[variables.more]\ntype = "list"\nitems = { type = "string" }\ndefault = []\n'
    )
    found = template.check({"name": "a", "more": ["x" * 10_000] * 14})
    assert [("", "expected at most 131072 bytes in all variables together")] == [
        (fault.pointer, fault.detail) for fault in found
    ]


# Rendering


def test_html_is_escaped_and_text_is_not():
    """A value is escaped in body.html, and stands as it is in subject and body.txt."""
    given = "<script>alert(\"x\")</script> & 'co'"
    content = make(
        subject="{{ name }}", html='<p title="{{ name }}">{{ name }}</p>', text="{{ name }}"
    ).render({"name": given})

    escaped = "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; &#x27;co&#x27;"
    assert Content(subject=given, html=f'<p title="{escaped}">{escaped}</p>', text=given) == content


@pytest.mark.parametrize("value", ["{{7*7}}", "{% include 'x' %}", "{# x #}", "{{ name }}"])
def test_values_are_not_rendered_again(value):
    """Template syntax inside a value stays literal."""
    content = make(subject="{{ name }}", html="{{ name }}", text="{{ name }}").render({"name": value})
    assert value == content.subject
    assert value == content.text
    assert value.replace("'", "&#x27;") == content.html


def test_what_is_optional_is_filled_in():
    """Defaults and None stand in for what a caller left out or gave as null, nested fields included."""
    template = make(
        MANIFEST
        + """
[variables.shop]
type = "string"
default = "Acme"
[variables.when]
type = "date"
required = false
example = "2026-03-09"
[variables.rows]
type = "list"
items = { type = "object", fields = { a = { type = "string" }, b = { type = "integer", default = 3 } } }
default = []
example = [{ a = "x" }]
""",
        text="{{ shop }}|{% if when %}{{ when | date }}{% else %}soon{% endif %}|"
        "{% for row in rows %}{{ row.a }}{{ row.b }},{% endfor %}|{{ when | default('never') }}",
    )
    rows = [{"a": "x"}, {"a": "y", "b": None}, {"a": "z", "b": 9}]

    assert "Acme|soon||never" == template.render({"name": "Ada"}).text
    assert "Acme|soon|x3,y3,z9,|never" == template.render({"name": "A", "shop": None, "rows": rows}).text
    assert (
        "B|March 9, 2026||2026-03-09"
        == template.render({"name": "A", "shop": "B", "when": "2026-03-09"}).text
    )


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("'a b/é' | urlencode", "a%20b%2F%C3%A9"),
        ("12.5 | decimals", "12.50"),
        ("12.345 | decimals(1)", "12.3"),
        ("['a', 'b', 3] | join(', ')", "a, b, 3"),
        ("'one two three' | truncate(10)", "one two…"),
        ("'short' | truncate(10)", "short"),
        ("' x ' | trim | upper | lower | capitalize", "X"),
        ("'aXa' | replace('X', '-')", "a-a"),
        ("2 | pluralize", "s"),
        ("name | length", "3"),
        ("'Hi ' ~ name ~ '!'", "Hi Ada!"),
        ("7 // 2 + 1 - 10 % 4", "2"),
        ("'yes' if name == 'Ada' and 3 is odd and name is not none else 'no'", "yes"),
        ("locale", "en"),
    ],
)
def test_expressions(expression, shown):
    """The filters and operators that the documentation lists do what it says."""
    assert shown == make(text=f"{{{{ {expression} }}}}").render({"name": "Ada"}).text


def test_locale_is_shown_to_the_files():
    """The files see as `locale` what the mail is written in: what was asked for, where the template speaks it."""
    template = make('locales = ["en", "de"]\n' + MANIFEST, text="{{ locale }}")
    asked = [None, "en-GB", "de", "de_at", "DE-AT", "fr", "de-QQ"]
    shown = [template.render({"name": "Ada"}, locale=locale).text for locale in asked]
    assert ["en", "en-GB", "de", "de-AT", "de-AT", "en", "de"] == shown


def test_subject_lines_of_the_file_become_one():
    """A subject may be wrapped over lines of its file; the ends are trimmed, blanks inside are kept."""
    template = make(subject="  Hello\n{% if name %}\n  dear  {{ name }}\n{% endif %}\n")
    assert "Hello dear  a  b" == template.render({"name": "a  b"}).subject.replace("Hello  ", "Hello ")


@pytest.mark.parametrize(
    "value", ["a\nBcc: e@x.example", "a\r\nBcc: e@x.example", "\x00", "\u2028", "\u202e", "\x85"]
)
def test_subject_with_control_characters(value):
    """A line break or control character out of a variable never becomes part of a subject."""
    with pytest.raises(RenderError, match=r"sample: subject\.txt: subject has control characters") as caught:
        make(subject="Hi {{ name }}").render({"name": value})
    assert "Bcc" not in str(caught.value)


def test_subject_is_neither_empty_nor_too_long():
    """An empty subject, or one above 998 characters, is no mail."""
    template = make(subject="{{ name }}")
    assert 998 == len(template.render({"name": "x" * 998}).subject)
    with pytest.raises(RenderError, match="subject is longer than 998 characters"):
        template.render({"name": "x" * 999})
    with pytest.raises(RenderError, match="subject is empty"):
        template.render({"name": " "})


def test_output_is_capped():
    """A part above a megabyte is refused, however it came about."""
    with pytest.raises(RenderError, match="makes more than 1000000 bytes"):
        make(text="{% for c in name %}{{ name }}{% endfor %}").render({"name": "x" * 2_000})
    with pytest.raises(RenderError, match="makes more than 1000000 bytes"):
        make(text="{% for c in name %}" + "y" * 9_000 + "{% endfor %}").render({"name": "x" * 200})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "{% if name == 'Ada' %}{% else %}\n{{ name + 1 }}{% endif %}",
            "line 2: does what its values do not allow",
        ),
        ("{% if name == 'Ada' %}{% else %}{{ name.x }}{% endif %}", "line 1: uses something undefined"),
        (
            "{% if name == 'Ada' %}{% else %}{{ name | url }}{% endif %}",
            "lets only http, https and mailto through",
        ),
        ("{% if name == 'Ada' %}{% else %}{{ name | date }}{% endif %}", "takes a date"),
    ],
)
def test_render_errors_hold_no_value(text, reason):
    """A rendering that fails names template, file and reason, and repeats no value."""
    with pytest.raises(RenderError) as caught:
        make(text=text).render({"name": "canary"})
    assert "sample" == caught.value.template
    assert reason in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["javascript:alert(1)", "JaVaScRiPt:x", "data:text/html,x", "vbscript:x", "x"]
)
def test_url_filter_refuses_schemes(value):
    """A link that would run code does not get into a mail, even where the variable is a plain string."""
    manifest = MANIFEST.replace('"Ada"', '"https://shop.example/?a=1&b=2"')
    template = make(manifest, html='<a href="{{ name | url }}">x</a>')
    assert (
        '<a href="https://shop.example/?a=1&amp;b=2">x</a>'
        == template.render({"name": "https://shop.example/?a=1&b=2"}).html
    )
    with pytest.raises(RenderError):
        template.render({"name": value})


# Hostile templates


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{% for i in range(1000) %}{% for j in range(1000) %}x{% endfor %}{% endfor %}", "too many steps"),
        ("{% for i in range(99999999) %}{% endfor %}", "range makes more than 1000 numbers"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "the statement 'macro' is not allowed"),
        ("{% for i in [[1]] recursive %}{{ loop(i) }}{% endfor %}", "recursive loops are not allowed"),
        ("{{ 'a' * 10 ** 9 }}", "'*' is not allowed"),
        ("{% set a = name ~ name %}", "'~' is not allowed in 'set'"),
        ("{% set a = [name, name] %}", "'[' is not allowed in 'set'"),
        ("{% set a = name, name %}", "a list of values is not allowed in 'set'"),
        ("{% for a in (name, name) %}{% endfor %}", "a list of values is not allowed in 'for'"),
        ("{% set a %}{{ name }}{{ name }}{% endset %}", "the statement 'endset' is not allowed"),
        ("{% set n = namespace(x=1) %}", "'namespace(…)' is not allowed"),
        ("{{ '%0999999999d' | format(1) }}", "the filter 'format' is not allowed"),
        ("{{ '{:0999999999}'.format(1) }}", "'format(…)' is not allowed"),
        ("{{ name | indent(999999999) }}", "the filter 'indent' is not allowed"),
        ("{{ name | center(999999999) }}", "the filter 'center' is not allowed"),
        ("{{ name | safe }}", "the filter 'safe' is not allowed"),
        ("{{ debug() }}", "'debug(…)' is not allowed"),
        ("{{ [1] | map('format') }}", "the filter 'map' is not allowed"),
        ("{{ name is filter('format') }}", "the test 'filter' is not allowed"),
        ("{% autoescape false %}{{ name }}{% endautoescape %}", "the statement 'autoescape' is not allowed"),
        ("{% filter upper %}x{% endfilter %}", "the statement 'filter' is not allowed"),
        ("{% include 'body.html' %}", "there is no file 'body.html'"),
        ("{% include '../../etc/passwd' %}", "there is no file '../../etc/passwd'"),
        ("{% include name %}", "include takes the name of a file between quotes"),
        ("{% import 'x' as y %}", "the statement 'import' is not allowed"),
        ("{% raw %}{{ x }}{% endraw %}", "the statement 'raw' is not allowed"),
        ("{{ name.upper() }}", "'upper(…)' is not allowed"),
        ("{{ (name)() }}", "')(…)' is not allowed"),
        ("{{ {'a': 1} }}", "cannot be read"),
        ("{{ name", "cannot be read"),
        ("{% if true %}" * 3_000 + "{% endif %}" * 3_000, "more than 1000 tags"),
        ("{% if 0 %}" + "{% elif 0 %}" * 60_000 + "{% endif %}", "longer than 262144 characters"),
        ("{{ 1" + "+1" * 60_000 + " }}", "more than 100 words and signs in one tag"),
        ("{{ " + "not " * 60_000 + "1 }}", "more than 100 words and signs in one tag"),
        ("{{ 1" + "|abs" * 60_000 + " }}", "more than 100 words and signs in one tag"),
    ],
)
def test_hostile_sources(source, said):
    """A source that loops, recurses, allocates or escapes the rules is refused in a moment, and says why."""
    start = time.process_time()
    with pytest.raises(TemplatesError) as caught:
        make(html=source)
    assert said in str(caught.value)
    assert 1 > time.process_time() - start


@pytest.mark.parametrize(
    "work",
    [
        "{% if name | upper | lower | urlencode | urlencode == 'x' %}{% endif %}",
        "{% if name ~ name ~ name == 'x' %}{% endif %}",
        "{% if rows | join(name) == 'x' %}{% endif %}",
        "{% if rows | join('-') == 'x' %}{% endif %}",
        "{% if name | replace('é', 'é') == 'x' %}{% endif %}",
        "{% if range(1000) == 1 %}{% endif %}",
        "{% for c in name %}{% if c in name %}{% endif %}{% endfor %}",
        "{{ name }}",
        "z" * 200_000,
    ],
)
def test_hostile_loops_over_hostile_data(work):
    """Every step in a loop is cheap enough that fuel ends the largest data: in about a second, told by what a plain loop takes."""
    template = make(
        MANIFEST
        + 'max_length = 20000\n[variables.rows]\ntype = "list"\nitems = { type = "string" }\ndefault = []\n',
        text="{% if rows %}{% for i in range(1000) %}{% for j in range(1000) %}"
        + work
        + "{% endfor %}{% endfor %}{% endif %}",
    )
    before, start = plain_loop(), time.process_time()
    with pytest.raises(RenderError):
        template.render({"name": "é<" * 10_000, "rows": ["<a>"] * 1_000})
    took = time.process_time() - start
    assert 130 > took / max(before, plain_loop())  # the dearest takes 40


def plain_loop():
    """The processor time of a million empty rounds, 30 ms on the core these bounds were found on."""
    start = time.process_time()
    for _ in range(1_000_000):
        pass
    return time.process_time() - start


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ("<p>\n<a href={{ name | url }}>", "a value in an attribute must stand in quotes"),
        ("<p>\n<a title={{ name }}>", "a value in an attribute must stand in quotes"),
        ("<p>\n<a {{ name }}>", "a value in an attribute must stand in quotes"),
        ('<p>\n<a href="{{ name }}">', "a value in href must pass the url filter: {{ … | url }}"),
        ('<p>\n<img src=" {{ name }}/x.png" />', "a value in src must pass the url filter: {{ … | url }}"),
        ('<p>\n<a href="javascript:f({{ name }})">', "href with a value inside must begin with https://"),
        (
            '<p>\n<a href="{% if name %}https://a{% endif %}{{ name }}">',
            "href with a value inside must begin",
        ),
        ('<p>\n<a onclick="f({{ name }})">', "a value must not stand in onclick"),
        ("<p>\n<script>let x = '{{ name }}'</script>", "a value must not stand in <script>"),
        ("<p>\n<style>p { color: {{ name }} }</style>", "a value must not stand in <style>"),
        ("<p>\n<{{ name }}>", "a value must not be the name of a tag"),
        ("<p>\n</{{ name }}>", "a value must not be the name of a tag"),
        ("<p>\n<?x {{ name }}>", "a value here cannot be made safe"),
        ('<p>\n<!--[if mso]><a href="{{ name }}"><![endif]-->', "a value in href must pass the url filter"),
    ],
)
def test_places_where_escaping_is_not_enough(html, said):
    """A value where escaping does not make it harmless is refused when the template is loaded, with its line."""
    (file, line, message), *others = faults_of(html=html)
    assert ("body.html", 2, []) == (file, line, others)
    assert message.startswith(said)


def test_places_where_escaping_is_enough():
    """Text, quoted attributes, comments, titles and the rest of a link take a value."""
    make(
        html="<title>{{ name }}</title><!-- {{ name }} --><p title='{{ name }}' style=\"width: {{ name }}\">"
        '<a href="https://shop.example/{{ name | urlencode }}">{{ name }}</a><a href="mailto:{{ name }}">x</a>'
    )


# Loading


def test_every_fault_of_every_template_at_once(tmp_path):
    """Loading a folder tells all faults of all its templates, each with file and line."""
    make_folder(tmp_path / "alpha", {"subject.txt": "x"})
    make_folder(
        tmp_path / "beta",
        {
            "template.toml": MANIFEST + 'maxlength = 3\n[delivery]\npriority = "urgent"\n',
            "subject.txt": "Hi\n{{ nome }",
            "body.txt": "\n\n{{ name | safe }}",
            "notes.md": "x",
        },
    )
    make_folder(tmp_path / "gamma", {"template.toml": "a = = 1", "subject.txt": b"\xff", "body.txt": "x"})
    make_folder(
        tmp_path / "Delta", {"template.toml": MANIFEST, "subject.txt": "x", "body.txt": "{{ nobody }}"}
    )
    make_folder(tmp_path / "_shared", {"anything": "x"})
    (tmp_path / "README.md").write_text("not a template")

    with pytest.raises(TemplatesError) as caught:
        TemplateSet.load_folder(tmp_path)

    lines = str(caught.value).splitlines()
    for expected in (
        "Delta/template.toml:1: a template's name is small letters",
        "alpha/body.html:1: missing: a template has body.html or body.mjml, body.txt, or both",
        "alpha/template.toml:1: missing",
        "beta/body.txt:3: the filter 'safe' is not allowed",
        "beta/notes.md:1: unknown file",
        "beta/subject.txt:2: cannot be read: '{{'",
        "beta/template.toml:7: /variables/name/maxlength: unknown field",
        "beta/template.toml:9: /delivery/priority: must be one of: high, normal, bulk",
        "gamma/subject.txt:1: is not UTF-8",
    ):
        assert 1 == sum(line.startswith(expected) for line in lines), expected
    assert 10 == len(lines)


def test_a_folder_that_is_not_there(tmp_path):
    """A wrong path is one clear fault."""
    with pytest.raises(TemplatesError, match="there is no such folder"):
        TemplateSet.load_folder(tmp_path / "none")


def make_folder(place, files):
    place.mkdir()
    for file, content in files.items():
        (place / file).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(
    ("manifest", "line", "message"),
    [
        ('[variables.name]\ntype = "text"', 3, "/variables/name/type: must be one of: string, integer"),
        ('[variables.name]\ntype = "string"', 2, "/variables/name: needs an example, or a default"),
        (
            '[variables.name]\ntype = "integer"\nexample = "7"',
            4,
            "/variables/name/example: expected an integer",
        ),
        ('[variables.name]\ntype = "list"\ndefault = []', 2, "/variables/name: type list needs items"),
        ('[variables.name]\ntype = "object"\nexample = {}', 2, "/variables/name: type object needs fields"),
        (
            '[variables.name]\ntype = "date"\nmax_length = 3\nexample = "2026-01-01"',
            2,
            "/variables/name: max_length",
        ),
        ('[variables.loop]\ntype = "string"\nexample = "x"', 2, "/variables/loop: the name is taken"),
        ('[variables.Name]\ntype = "string"\nexample = "x"', 2, "/variables/Name: "),
        ('[delivery]\n\ndeliver_within = "1.5s"', 4, "/delivery/deliver_within: expected whole seconds"),
        ('[delivery]\n\ndeliver_within = "31d"', 4, "/delivery/deliver_within: expected whole seconds"),
        ("[delivery]\nretries = 3", 3, "/delivery/retries: unknown field"),
        ('agents = ["Orders"]', 2, "/agents/0: "),
        ("owner = 3", 2, "/owner: "),
        ("owner = " + "[" * 50_000 + "]" * 50_000, 1, "nested too deep"),
    ],
)
def test_faults_of_a_manifest(manifest, line, message):
    """A mistake in template.toml is told with its line and place."""
    found = faults_of(manifest=f'description = "d"\n{manifest}')
    assert [("template.toml", line)] == [fault[:2] for fault in found]
    assert found[0][2].startswith(message)


def test_nesting_is_bounded():
    """Types nest at most sixteen deep."""
    nested = 'type = "string"'
    for _ in range(17):
        nested = f'type = "list", items = {{ {nested} }}'
    found = faults_of(manifest=f'description = "d"\nvariables = {{ deep = {{ {nested}, default = [] }} }}')
    assert [("template.toml", 2)] == [fault[:2] for fault in found]
    assert "nested deeper than 16" in found[0][2]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\n{{ nome }}", 2, "'nome' is not among the variables"),
        ("\n{% if name %}", 2, "syntax error: unexpected end of input"),
        ("a\nb {{ name.first }}", 2, "undefined value"),
        ("a\n{{ name | url }}", 2, "the url filter lets only http, https and mailto through"),
        (
            "a\n\n{{ extra }}",
            3,
            "shows a value that is not there; only text and numbers can be shown (when the",
        ),
        ("a\n{{ name == 'Ada' }}", 2, "shows true or false"),
        ("a\x0cb", 1, "holds a control character (U+000C)"),
    ],
)
def test_faults_of_a_body(text, line, message):
    """Loading renders the examples, with and without what is optional, and tells the line that fails."""
    extra = '[variables.extra]\ntype = "string"\nrequired = false\nexample = "x"\n'
    found = faults_of(manifest=MANIFEST + extra, text=text)
    assert [("body.txt", line)] == [fault[:2] for fault in found]
    assert found[0][2].startswith(message)


def test_delivery_defaults():
    """[delivery] gives a template's defaults, a duration in seconds, and None for what it leaves open."""
    template = make(
        'agents = ["orders"]\n' + MANIFEST + '[delivery]\ndeliver_within = "10m"\ntrack_opens = false\n'
    )
    assert (600, False, None) == (
        template.delivery.deliver_within,
        template.delivery.track_opens,
        template.delivery.priority,
    )
    assert 45 == make(MANIFEST + "[delivery]\ndeliver_within = 45\n").delivery.deliver_within
    assert ("orders",) == template.agents


# Versions


def test_the_version_is_the_content():
    """The version changes with any file's content, and with nothing else."""
    versions = {
        make(text="a").version,
        make(text="b").version,
        make(html="a").version,
        make(text="a", subject="Other").version,
        make(MANIFEST + "\n", text="a").version,
    }
    assert 5 == len(versions)
    assert {12} == {len(version) for version in versions}
    assert make(text="a\nb").version == make(text="a\r\nb").version
    assert make(text="a").version == make(text="a", name="other").version


def test_source_round_trip(shipped):
    """A template made of another's source is the same version and renders the same."""
    for template in shipped:
        copy = Template.from_source(template.name, template.source())
        assert template.version == copy.version
        assert template.source() == copy.source()
        assert template.render(examples(template)) == copy.render(examples(template))


@pytest.mark.parametrize("source", [b"", b"\xc1", b"\x81\xa1a\xa1b", msgspec.msgpack.encode([["a", 1]])])
def test_a_broken_source_is_refused(source):
    """Bytes that are no template's source end in the same error as bad files."""
    with pytest.raises(TemplatesError):
        Template.from_source("sample", source)


# What ships


def examples(template, *, bare=False):
    return {
        name: variable.default if variable.example is msgspec.UNSET else variable.example
        for name, variable in template.variables.items()
        if not (bare and variable.optional)
    }


def test_shipped_templates_load(shipped):
    """The templates that ship are the four that the documentation names."""
    assert SHIPPED_NAMES == shipped.names
    assert shipped.get("none") is None


@pytest.mark.parametrize("name", SHIPPED_NAMES)
@pytest.mark.parametrize("bare", [False, True])
def test_shipped_templates_render(shipped, name, bare):
    """A shipped template takes its own examples and shows each of them in both bodies."""
    template = shipped.get(name)
    variables = examples(template, bare=bare)

    assert [] == template.check(variables)
    content = template.render(variables)

    assert '<html lang="en" dir="ltr"' in content.html
    assert "<img" not in content.html
    for value in variables.values():
        if isinstance(value, str) and value != variables.get("eta"):
            assert value in content.html
            assert value in content.subject + content.text
    assert content.text.endswith("\n")
    assert "\n\n\n" not in content.text


def test_the_first_call_of_the_readme(shipped):
    """order_shipped needs a name, an order number and a link, and nothing else."""
    template = shipped.get("order_shipped")
    link = "https://shop.example/track/10023"
    variables = {"first_name": "Ada", "order_number": "10023", "tracking_url": link}

    assert [] == template.check(variables)
    assert "Your order 10023 is on its way" == template.render(variables).subject
    assert 2 == template.render(variables).html.count(f'href="{link}"')
    assert ["/first_name", "/order_number", "/tracking_url"] == [f.pointer for f in template.check({})]


def test_a_login_code_is_never_late(shipped):
    """login_code goes first, retries fast, and expires after ten minutes."""
    delivery = shipped.get("login_code").delivery
    assert ("high", "interactive", 600) == (
        delivery.priority,
        delivery.retry_profile,
        delivery.deliver_within,
    )
