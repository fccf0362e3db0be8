"""A template rendered on its examples: in every locale, with everything given and with only what is required."""

from msgspec import Struct

from postroom.message import Content
from postroom.templates import Template

FULL, LEAST = "every variable", "required variables only"


class Showing(Struct, frozen=True):
    """One rendering of a template: in which locale, on which example."""

    locale: str
    example: str
    content: Content

    @property
    def place(self) -> tuple[str, str]:
        """What it is compared by with the same of another version."""
        return self.locale, self.example


def show(template: Template) -> list[Showing]:
    """Render a template in each of its locales. Both examples are shown where they differ."""
    examples = {FULL: template.examples}
    if template.least_examples != template.examples:
        examples[LEAST] = template.least_examples
    return [
        Showing(locale, example, template.render(variables, locale))
        for locale in template.locales
        for example, variables in examples.items()
    ]
