"""Layouts, MJML, inlined CSS, text made from HTML, locales and what is formatted by them."""

import pytest

from postroom.templates import Template, TemplatesError

MANIFEST = """
description = "A mail to try things with."

[variables.name]
type = "string"
example = "Ada"

[variables.rows]
type = "list"
default = []
example = ["one", "two"]
items = { type = "string" }
"""
SECTION = "<mjml><mj-body><mj-section><mj-column>{}</mj-column></mj-section></mj-body></mjml>"


def make(manifest=MANIFEST, **files):
    """A template of files, whose names have `__` for a dot and `shared_` for the shared folder."""
    named = {name.replace("shared_", "_shared/").replace("__", "."): text for name, text in files.items()}
    return Template("sample", {"template.toml": manifest, "subject.txt": "Hello", **named})


def faults_of(manifest=MANIFEST, **files):
    with pytest.raises(TemplatesError) as caught:
        make(manifest, **files)
    return [(fault.file, fault.line, fault.message) for fault in caught.value.faults]


def text_of(template, locale=None, **variables):
    return template.render({"name": "Ada", **variables}, locale).text


# Layouts


def test_blocks_fill_a_layout():
    """A file that extends another fills its blocks; what it leaves out is the layout's own, super() included."""
    template = make(
        body__txt='{% extends "_shared/base.txt" %}\n{% block middle %}\n<{{ super() }}> {{ name }}\n{% endblock %}\n',
        shared_base__txt="top\n{% block middle %}own{% endblock %}\n{% block end %}\nbye\n{% endblock %}\n",
    )
    assert "top\n<own> Ada\nbye\n" == text_of(template)


def test_layouts_stand_on_layouts():
    """Each layer may fill the blocks of the one below, and the highest one wins."""
    template = make(
        body__txt='{% extends "_shared/two.txt" %}{% block a %}3{{ super() }}{% endblock %}',
        shared_two__txt='{% extends "_shared/one.txt" %}{% block a %}2{{ super() }}{% endblock a %}{% block b %}B{% endblock %}',
        shared_one__txt="[{% block a %}1{% endblock %}{% block b %}{% endblock %}]",
    )
    assert "[321B]" == text_of(template)


def test_partials_are_included_where_they_stand():
    """A file of the template, or a shared one, may be included, inside loops too, and sees every variable."""
    template = make(
        body__txt='{% for row in rows %}\n{% include "_row.txt" %}\n{% endfor %}\n{% include "_shared/foot.txt" %}\n',
        _row__txt="- {{ row }} for {{ name }}\n",
        shared_foot__txt="bye\n",
    )
    assert "- a for Ada\n- b for Ada\nbye\n" == text_of(template, rows=["a", "b"])


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        (
            {"body__txt": '\n{% extends "_shared/x.txt" %}'},
            ("body.txt", 2, "there is no file '_shared/x.txt'"),
        ),
        (
            {"body__txt": '{% include "_a.txt" %}', "_a__txt": '\n{% include "_a.txt" %}'},
            ("_a.txt", 2, "more than 8 files include"),
        ),
        (
            {"body__txt": '{% extends "_a.txt" %}', "_a__txt": '{% extends "_a.txt" %}'},
            ("_a.txt", 1, "more than 8 files extend"),
        ),
        (
            {"body__txt": '{% extends "_a.txt" %}\n{{ name }}', "_a__txt": "x"},
            ("body.txt", 2, "a file that extends another holds blocks only"),
        ),
        ({"body__txt": 'x{% extends "_a.txt" %}', "_a__txt": "x"}, ("body.txt", 1, "extends stands first")),
        ({"body__txt": "{% block a %}"}, ("body.txt", 1, "block 'a' has no endblock")),
        ({"body__txt": "{% block a %}{% endblock b %}"}, ("body.txt", 1, "endblock without its block")),
        (
            {"body__txt": "{% block a %}{% endblock %}{% block a %}{% endblock %}"},
            ("body.txt", 1, "a second block 'a'"),
        ),
        ({"body__txt": "{{ super() }}"}, ("body.txt", 1, "super() stands inside a block")),
        (
            {"body__txt": "{% block a %}{{ super() }}{% endblock %}"},
            ("body.txt", 1, "no layout has a block 'a'"),
        ),
        (
            {"body__txt": '{% include "_a.txt" %}', "_a__txt": "\n\n{{ nobody }}"},
            ("_a.txt", 3, "'nobody' is not among the variables"),
        ),
        (
            {"body__txt": '{% include "_shared/a.txt" %}', "shared_a__txt": "\n{{ name | safe }}"},
            ("_shared/a.txt", 2, "the filter 'safe' is not allowed"),
        ),
        (
            {"body__txt": '{% include "_shared/a.txt" %}', "shared_a__txt": "\n{{ name.x }}"},
            ("_shared/a.txt", 2, "undefined value"),
        ),
        (
            {
                "body__txt": '{% include "_a.txt" %}' * 2,
                "_a__txt": '{% include "_b.txt" %}' * 900,
                "_b__txt": "{{ name }}",
            },
            ("body.txt", 1, "more than 1000 tags"),
        ),
        (
            {
                "body__txt": '{% for a in rows %}{% include "_a.txt" %}{% endfor %}',
                "_a__txt": "{% for b in rows %}{% for c in rows %}{% for d in rows %}{% endfor %}{% endfor %}{% endfor %}",
            },
            ("_a.txt", 1, "more than 3 loops"),
        ),
    ],
)
def test_faults_of_layouts(files, fault):
    """What ties files together wrongly is told with the file and line at which it stands."""
    (file, line, message), *others = faults_of(**files)
    assert (fault[:2], []) == ((file, line), others)
    assert message.startswith(fault[2])


def test_the_version_covers_the_shared_files_in_use():
    """A shared file that is used makes the version; one that is not leaves it, and is not kept."""
    files = {"body__txt": '{% include "_shared/a.txt" %}', "shared_a__txt": "x"}
    used = make(**files)
    assert used.version == make(**files, shared_other__txt="y").version
    assert used.version != make(**{**files, "shared_a__txt": "z"}).version
    assert {"template.toml", "subject.txt", "body.txt", "_shared/a.txt"} == used.files.keys()


# MJML and CSS


def test_mjml_becomes_html_with_its_tags_in_place():
    """Values, conditions and loops work in text, in attributes and between the elements of a column."""
    template = make(
        body__mjml=SECTION.format(
            '<mj-text>Hello {{ name }}</mj-text>{% if rows %}<mj-table>{% for row in rows %}<tr><td title="{{ row }}">'
            "{{ row }}</td></tr>{% endfor %}</mj-table>{% endif %}"
            '<mj-button href="https://x.example/?q={{ name | urlencode }}&amp;r=1">Go</mj-button>'
        )
    )
    full = " ".join(template.render({"name": "Ada & <Bo>", "rows": ["a", "b"]}).html.split())
    assert "Hello Ada &amp; &lt;Bo&gt;<" in full
    assert '<tr><td title="a">a</td></tr><tr><td title="b">b</td></tr></table>' in full
    assert 'href="https://x.example/?q=Ada%20%26%20%3CBo%3E&amp;r=1"' in full
    assert "title=" not in template.render({"name": "Ada"}).html
    assert "prx" not in full
    assert full.lower().startswith("<!doctype html>")
    assert "fonts.googleapis" not in full


@pytest.mark.parametrize(
    ("mjml", "line", "message"),
    [
        ("<mjml>\n<mj-body>\n<mj-txt>x</mj-txt></mj-body></mjml>", 3, "unknown element mj-txt"),
        (
            '<mjml>\n<mj-body><mj-include path="/etc/passwd" /></mj-body></mjml>',
            2,
            "mj-include is not allowed",
        ),
        ("<mjml><mj-body>\n<mj-text>a</b></mj-text></mj-body></mjml>", 2, "no valid MJML: unexpected token"),
        ("<div></div>", 1, "no valid MJML"),
        (SECTION.format("\n{{ name }}"), 2, "text stands inside mj-text or its like"),
        (SECTION.format("\n<mj-text>{{ nobody }}</mj-text>"), 2, "'nobody' is not among the variables"),
        (SECTION.format("\n<mj-text>{{ name.x }}</mj-text>"), 2, "undefined value"),
        (
            SECTION.format('\n<mj-button href="{{ name }}">x</mj-button>'),
            2,
            "a value in href must pass the url filter",
        ),
        (
            "<mjml><mj-body><mj-wrapper>\n{% if rows %}<mj-section></mj-section>{% endif %}</mj-wrapper></mj-body></mjml>",
            2,
            "a statement may not begin or end here",
        ),
    ],
)
def test_faults_of_mjml(mjml, line, message):
    """What is wrong in MJML is told with the line its author wrote it on."""
    found = faults_of(body__mjml=mjml)
    assert [("body.mjml", line)] == [fault[:2] for fault in found]
    assert found[0][2].startswith(message)


def test_css_is_inlined_once():
    """Rules become style attributes; media queries stay, and no tag moves, in tables neither."""
    template = make(
        body__html="<!DOCTYPE html><html><head><style>td { color: red; } @media print { td { color: blue; } }</style></head>"
        "<body><table>{% for row in rows %}<tr><td>{{ row }}</td></tr>{% endfor %}</table>"
        '<p style="{% if rows %}margin: 0;{% endif %}" title="{{ name }}">{{ name }}</p></body></html>'
    )
    html = template.render({"name": 'A"b', "rows": ["x", "y"]}).html
    cell = '<tr><td style="color: red;">{}</td></tr>'
    assert f"<table><tbody>{cell.format('x')}{cell.format('y')}</tbody></table>" in html
    assert "@media print { td { color: blue; } }" in html
    assert '<p style="margin: 0;" title="A&quot;b">A&quot;b</p>' in html
    assert "<tr>" not in template.render({"name": "A"}).html


def test_html_without_rules_stays_as_it_is():
    """Nothing is inlined where there is nothing to inline, and the source stays its author's."""
    source = "<p class=x>{{ name }}<br/>\n<style>@media print { p { color: red } }</style>\n"
    assert source.replace("{{ name }}", "Ada") == make(body__html=source).render({"name": "Ada"}).html


def test_html_beside_mjml_is_a_fault():
    """Two sources of one part leave nobody knowing which one is sent."""
    found = faults_of(body__html="x", body__mjml=SECTION.format(""))
    assert ("body.html", 1, "stands beside the same in MJML: one of them is enough") in found


# Text made from HTML


def test_text_is_made_from_html():
    """Without a body.txt the text has the words, the links and the rows of the HTML, and unescaped values."""
    template = make(
        body__html="<html><head><title>no</title></head><body><div style='display:none'>no</div><h1>Hi {{ name }}</h1>"
        '<p>See <a href="https://x.example/{{ name | urlencode }}">the list</a>:</p><table>{% for row in rows %}'
        "<tr><td>{{ loop.index }}</td><td>{{ row }}</td></tr>{% endfor %}</table>"
        '{% if rows %}<p>Done.</p>{% endif %}<a href="https://x.example/">https://x.example/</a></body></html>'
    )
    text = text_of(template, rows=["a<b", "c & d"])
    lines = [line.split() for line in text.splitlines() if line]
    assert ["Hi", "Ada"] == lines[0]
    assert ["See", "the", "list", "<https://x.example/Ada>:"] == lines[1]
    assert [["1", "a<b"], ["2", "c", "&", "d"]] == lines[2:4]
    assert [["Done."], ["https://x.example/"]] == lines[4:]
    assert "Done" not in text_of(template)
    assert "\n\n\n" not in text


def test_a_text_of_its_own_wins():
    """A body.txt is sent as it is."""
    assert "own" == text_of(make(body__html="<p>html</p>", body__txt="own"))


def test_texts_that_meet_make_no_tag():
    """A brace of one file before one of another, or one that HTML had hidden: nobody has judged what they open."""
    asks = "{ 'x' * 5 }}"
    found = faults_of(body__html=f"<p>&#123;{asks}</p>")
    assert [("body.html", 1)] == [fault[:2] for fault in found]
    assert "two of its texts together make a tag" in found[0][2]
    found = faults_of(body__txt=f'{{% include "_shared/a.txt" %}}{asks}', shared_a__txt="{")
    assert "two of its texts together make a tag" in found[0][2]
    assert "{ 'x' * 5 }}" == text_of(make(body__txt=asks))


# Locales

LOCALES = 'locales = ["en", "de"]\n' + MANIFEST


def test_a_locale_falls_back():
    """de-AT falls back to de, and any other language to the default one; each file by itself."""
    template = Template(
        "sample",
        {
            "template.toml": 'locales = ["en", "de", "de-AT"]\n' + MANIFEST,
            "subject.txt": "Hello",
            "subject.de.txt": "Hallo",
            "body.txt": "Hi {{ name }}",
            "body.de.txt": "Hallo {{ name }}",
            "body.de-AT.txt": "Servus {{ name }}",
        },
    )
    asked = ["de-AT", "de-CH", "de", "en-US", "fr", None]
    shown = [template.render({"name": "A"}, locale) for locale in asked]
    assert ["Servus A", "Hallo A", "Hallo A", "Hi A", "Hi A", "Hi A"] == [content.text for content in shown]
    assert ["Hallo", "Hallo", "Hallo", "Hello", "Hello", "Hello"] == [content.subject for content in shown]
    assert ["de-AT", "de-CH", "de", "en-US", "en", "en"] == [template.locale_for(locale) for locale in asked]


def test_text_is_never_of_another_language_than_its_html():
    """Where a locale has HTML and no text, its text is made of that HTML."""
    template = make(
        LOCALES, body__html="<p>English</p>", body__txt="English by hand", body__de__html="<p>Deutsch</p>"
    )
    assert ("English by hand", "Deutsch\n") == (text_of(template), text_of(template, "de"))


def test_partials_have_locales():
    """A layout and its parts are found in the locale's own variant where there is one."""
    template = make(
        LOCALES,
        body__txt='{% extends "_shared/base.txt" %}{% block a %}{{ name }}{% endblock %}',
        shared_base__txt='{% include "_shared/hi.txt" %} {% block a %}{% endblock %}',
        shared_hi__txt="Hello",
        shared_hi__de__txt="Hallo",
    )
    assert ("Hello Ada", "Hallo Ada") == (text_of(template), text_of(template, "de"))


def test_files_without_a_declared_locale():
    """Locales that are not declared are those of the files' names; declared ones have no others beside them."""
    assert ("en", "de", "fr") == make(body__txt="x", body__fr__txt="y", subject__de__txt="z").locales
    found = faults_of(LOCALES, body__txt="x", body__fr__txt="y")
    assert [("body.fr.txt", 1, "its locale is not among the locales: en, de")] == found
    assert "expected a locale" in faults_of('locales = ["english"]\n' + MANIFEST, body__txt="x")[0][2]


def test_every_locale_is_tried():
    """A mistake in the files of one locale is found though the others are right."""
    found = faults_of(LOCALES, body__txt="x", body__de__txt="\n{{ name | url }}")
    assert [("body.de.txt", 2)] == [fault[:2] for fault in found]


MONEY = 'description = "d"\n[variables.total]\ntype = "money"\nexample = { amount = "1234.5", currency = "EUR" }\n'


@pytest.mark.parametrize(
    ("expression", "en", "de"),
    [
        ("total | money", "€1,234.50", "1.234,50 €"),
        ("total.currency ~ ' ' ~ total.amount", "EUR 1234.5", "EUR 1234.5"),
        ("'2026-03-09' | date", "March 9, 2026", "9. März 2026"),
        ("'2026-03-09' | date('short')", "3/9/26", "09.03.26"),
        ("'2026-03-09' | date('full')", "Monday, March 9, 2026", "Montag, 9. März 2026"),
        ("1234567.891 | number", "1,234,567.891", "1.234.567,891"),
        ("1234.5 | decimals", "1,234.50", "1.234,50"),
        ("1234.5 | decimals(0)", "1,234", "1.234"),
        ("0.255 | percent", "26%", "26 %"),
    ],
)
def test_values_are_written_by_locale(expression, en, de):
    """Dates, numbers and money look as readers of the locale write them."""
    template = Template(
        "sample",
        {
            "template.toml": 'locales = ["en", "de"]\n' + MONEY,
            "subject.txt": "x",
            "body.txt": f"{{{{ {expression} }}}}",
        },
    )
    total = {"amount": "1234.5", "currency": "EUR"}
    shown = [template.render({"total": total}, locale).text for locale in ("en", "de")]
    assert [en, de] == [text.replace("\xa0", " ") for text in shown]


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        ("0", "EUR", "€0.00"),
        ("-3.1", "USD", "-$3.10"),
        ("1.005", "EUR", "€1.005"),
        ("1000", "JPY", "¥1,000"),
        ("999999999999999.99", "GBP", "£999,999,999,999,999.99"),
    ],
)
def test_money_is_exact(amount, currency, shown):
    """No amount is rounded or goes through a float."""
    files = {"template.toml": MONEY, "subject.txt": "x", "body.txt": "{{ total | money }}"}
    content = Template("sample", files).render({"total": {"amount": amount, "currency": currency}})
    assert shown == content.text


@pytest.mark.parametrize(
    ("value", "pointers"),
    [
        ("19.90", ["/total"]),
        (19.9, ["/total"]),
        ({"amount": 19.9, "currency": "EUR"}, ["/total/amount"]),
        ({"amount": "19,90", "currency": "EUR"}, ["/total/amount"]),
        ({"amount": "1e3", "currency": "eur"}, ["/total/amount", "/total/currency"]),
        ({"amount": "1", "currency": "XQQ", "cents": 3}, ["/total/cents", "/total/currency"]),
        ({}, ["/total/amount", "/total/currency"]),
    ],
)
def test_money_is_checked(value, pointers):
    """An amount is a decimal number as text with a currency, and nothing else."""
    files = {"template.toml": MONEY, "subject.txt": "x", "body.txt": "{{ total | money }}"}
    template = Template("sample", files)
    assert pointers == [fault.pointer for fault in template.check({"total": value})]
    assert [] == template.check({"total": {"amount": "19.90", "currency": "EUR"}})
