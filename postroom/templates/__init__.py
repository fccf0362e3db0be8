"""Templates: what a mail says, written as files by the team that owns the mail.

A caller sends variables; `Template.check` judges them before anything is accepted, and `Template.render`
makes the `Content` in a worker. This package knows nothing of HTTP, of Redis or of channels.

faults    what is wrong with a template, or with one rendering
manifest  template.toml
variables what a template declares, and filling in what is optional
checks    judging given values by it
sources   the files, and which of them a locale sees (locales)
language  which part of the template language may be used
layout    extends, block and include, carried out on the source
marks     taking tags through tools that do not know them: mjml, css, plaintext
wire      making HTML ready to be sent
markup    where in HTML a value may stand
engine    minijinja with everything unbounded taken out (filters, formats: our own)
prepare   the files judged together and compiled
template  the pieces put together
folder    reading a folder of templates
judging   the same in a process of its own, before anything is trusted
"""

from postroom.templates.faults import RenderError, TemplateFault, TemplatesError
from postroom.templates.folder import TemplateSet
from postroom.templates.manifest import Delivery
from postroom.templates.template import Template
from postroom.templates.variables import Variable

__all__ = [
    "Delivery",
    "RenderError",
    "Template",
    "TemplateFault",
    "TemplateSet",
    "TemplatesError",
    "Variable",
]
