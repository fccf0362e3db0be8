"""The HTML of the shipped templates, as html-validate reads it."""

from pathlib import Path

import pytest

from postroom.templates import TemplateSet
from tests.npm import ask

SHIPPED = Path(__file__).parents[2] / "templates"


@pytest.mark.timeout(120)
def test_shipped_templates_are_sound_html():
    """Every shipped template, in every locale, with everything and with the least, breaks no rule of syntax."""
    mails = {
        f"{template.name}.{locale}.{kind}": template.render(variables, locale).html
        for template in TemplateSet.load_folder(SHIPPED)
        for locale in template.locales
        for kind, variables in (("full", template.examples), ("least", template.least_examples))
    }
    assert {name: [] for name in mails} == ask("validate-html.mjs", mails)


def test_the_judge_judges():
    """What is no sound HTML is told."""
    found = ask("validate-html.mjs", {"broken": "<!DOCTYPE html><p><b>x</p></b><a href='x' href=\"y\">"})
    assert {"close-order", "no-dup-attr"} <= {message.split()[1].rstrip(":") for message in found["broken"]}
