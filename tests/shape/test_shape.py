"""What holds for the shape of the whole: the contract, the metrics, the layers, the logs."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, Histogram

from postroom.failpoint import POINTS
from postroom.log_events import EVENTS
from postroom.metrics import CarrierMetrics, EdgeMetrics
from service.openapi import openapi_document, openapi_json
from service.problem import STATUS
from service.routes import ROUTES
from service.template_routes import TEMPLATE_ROUTES

ROOT = Path(__file__).parents[2]
PACKAGES = ("postroom", "service", "workers")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TREES = {path.relative_to(ROOT): ast.parse(path.read_text()) for path in SOURCES}

MILLISECONDS = "stages.to_ms("  # numbers by stage, whose names the catalogue has
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "bind"}
# Words that personal data and secrets go by; `recipients` is a count, `client_ref` is promised to be clean.
PERSONAL = {
    "to", "cc", "bcc", "address", "addresses", "recipient", "sender", "from_", "reply_to", "email", "name",
    "subject", "html", "text", "body", "content", "payload", "variables", "metadata", "headers", "filename",
    "token", "authorization", "password", "secret", "key", "url", "reply", "response", "request", "value",
}  # fmt: skip


def resolve(part, document):
    """Follow a reference inside the document."""
    while "$ref" in part:
        found = document
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        part = found
    return part


def references(part):
    """Yield every `$ref` below a part of the document."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def _tells(path, func):
    """True for a method of a logger, and for one that was chosen by its level and called `tell`."""
    if isinstance(func, ast.Attribute):
        return func.attr in LEVELS and re.search(r"\b_?log(ger)?\b", ast.unparse(func.value)) is not None
    return (
        isinstance(func, ast.Name)
        and func.id == "tell"
        and ("workers" in path.parts or path.name == "ending.py")
    )


def log_calls():
    """Yield file, line, event (a node) and keywords of every call on a logger."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _tells(path, node.func):
                yield path, node


def test_the_checked_in_contract_is_the_generated_one():
    """`openapi/postroom.yaml` is what the code says; after a change, run `make openapi`."""
    stored = yaml.safe_load((ROOT / "openapi" / "postroom.yaml").read_text())
    assert json.loads(openapi_json()) == stored


def test_every_route_is_in_the_contract_and_the_other_way_round():
    """No route is undocumented, and nothing is documented that is not there."""
    routes = {
        (re.sub(r"\{(\w+):\w+\}", r"{\1}", path), method.lower())
        for handler in [*ROUTES, *TEMPLATE_ROUTES]
        for path in handler.paths
        for method in handler.http_methods
    }
    documented = {
        (path, method) for path, methods in openapi_document()["paths"].items() for method in methods
    }
    assert documented == routes


def test_every_reference_of_the_contract_leads_somewhere():
    """No `$ref` is broken."""
    document = openapi_document()
    found = set(references(document))
    assert found
    for reference in found:
        assert resolve({"$ref": reference}, document)


@pytest.mark.parametrize("name", ["MessageRequest", "Mailbox", "TemplateChoice", "GivenContent"])
def test_unknown_fields_are_forbidden_by_the_contract_too(name):
    """The bodies callers send say `additionalProperties: false`, as the code does."""
    assert openapi_document()["components"]["schemas"][name]["additionalProperties"] is False


def test_every_problem_of_the_code_is_listed_with_an_operation_or_is_reserved():
    """Each operation under /v1 tells the codes of all statuses it can answer."""
    document = openapi_document()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if path.startswith("/v1/"):
                assert {"400", "401", "403", "503"} <= set(operation["responses"])
    told = json.dumps(document["paths"])
    untold = {str(code) for code in STATUS if f"`{code}`" not in told}
    # 405 and 411 belong to no operation: they are answered where there is none.
    assert {"method_not_allowed"} == untold


@pytest.mark.parametrize("kind", [EdgeMetrics, CarrierMetrics])
def test_every_metric_has_the_prefix_and_a_help(kind):
    """A process's own metrics are told from everybody else's by `postroom_`."""
    registry = CollectorRegistry()
    kind(registry)
    families = list(registry.collect())
    assert families
    assert [] == [f.name for f in families if not f.name.startswith("postroom_")]
    assert [] == [f.name for f in families if not f.documentation.endswith(".")]


def test_metrics_are_declared_in_one_module():
    """Nobody makes a metric anywhere but in `postroom/metrics.py`, and in `shared_metrics.py` for what is the same for all."""
    kinds = {"Counter", "Gauge", "Histogram", "Summary"}
    places = {
        str(path)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module == "prometheus_client"
        and kinds & {alias.name for alias in node.names}
    }
    assert {"postroom/metrics.py", "postroom/shared_metrics.py"} == places


def test_no_metric_is_labelled_by_what_has_no_bounds():
    """Labels never are a recipient, an id, a ref or anybody's text."""
    allowed = set(
        "agent caller cause channel code hash instead_of kind label method op outcome owner phase priority reason redis reply_class"
        " retry_profile role route stage state status step template token_id value version".split()
    )
    for kind in (EdgeMetrics, CarrierMetrics):
        registry = CollectorRegistry()
        kind(registry)
        labels = {label for collector in registry._collector_to_names for label in collector._labelnames}
        assert set() == labels - allowed
        # A histogram has a series for each bucket: with an agent it would be most of what there is to store.
        histograms = [c for c in registry._collector_to_names if isinstance(c, Histogram)]
        assert set() == {c._name for c in histograms if {"agent", "caller", "template"} & set(c._labelnames)}


def test_the_layers_hold():
    """service → postroom ← workers, and nothing else: import-linter's contracts are kept."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert 0 == run.returncode, run.stdout[-3000:] + run.stderr[-1000:]


WORD = re.compile(r"[a-z]+(\.[a-z_]+)+")
ELSEWHERE = ("postroom/inbox/", "postroom/dev/", "postroom/cli/")  # what `make run` starts, and what prints


def names_of(path, node):
    """Return the names an event may have: a literal, or the literals of the function that chooses among them."""
    event = node.args[0]
    if isinstance(event, ast.Constant):
        return [event.value]
    functions = [f for f in ast.walk(TREES[path]) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = [f for f in functions if f.lineno <= node.lineno <= f.end_lineno]
    (function,) = inside[-1:]
    places = [function, *(n for n in TREES[path].body if isinstance(n, ast.Assign))]
    names = []
    for part in (n for place in places for n in ast.walk(place)):
        if isinstance(part, ast.JoinedStr) and isinstance(part.values[0], ast.Constant):
            prefix = str(part.values[0].value)
            names += (
                [name for name in EVENTS if name.startswith(prefix)]
                if prefix in ("message.", "attempt.")
                else []
            )
        elif isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value in EVENTS:
            names.append(part.value)
    return names


def test_every_event_is_in_the_catalogue_with_its_fields():
    """No other name is emitted than those of `postroom/log_events.py`, no other field, and each of them is."""
    calls = [
        (p, n)
        for p, n in log_calls()
        if getattr(n.func, "attr", "") != "bind" and not str(p).startswith(ELSEWHERE)
    ]
    assert len(calls) > 20
    wrong, emitted = [], set()
    for path, node in calls:
        names = names_of(path, node)
        emitted |= set(names)
        unknown = [name for name in names if name not in EVENTS]
        if not names or unknown or len(node.args) > 1:
            wrong.append(f"{path}:{node.lineno}: {unknown or 'not an event'}")
            continue
        allowed = {field for name in names for field in EVENTS[name].fields} | {"exc_info"}
        given = {keyword.arg for keyword in node.keywords if keyword.arg}
        wrong += [f"{path}:{node.lineno}: {names} has no field {field}" for field in given - allowed]
    assert [] == wrong
    assert set() == set(EVENTS) - emitted


def test_the_catalogue_is_made_of_words_that_hold_no_data():
    """Names are `area.what_happened`, fields are not words that personal data goes by."""
    assert [] == [name for name in EVENTS if not WORD.fullmatch(name)]
    assert set() == {field for event in EVENTS.values() for field in event.fields} & (PERSONAL - {"text"})


def test_the_page_of_events_is_the_one_made_from_the_catalogue():
    """`make docs` was run after the last change of `postroom/log_events.py`."""
    spec = importlib.util.spec_from_file_location("events_page", ROOT / "docs" / "events.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.page() == (ROOT / "docs" / "events.md").read_text()


def test_no_log_line_has_a_field_for_personal_data():
    """No call on a logger names an address, a subject, variables, a body, a token or the like."""
    wrong = [
        f"{path}:{node.lineno}: {keyword.arg}"
        for path, node in log_calls()
        for keyword in node.keywords
        if keyword.arg in PERSONAL - {"text"}
        or (keyword.arg is None and not ast.unparse(keyword.value).startswith(MILLISECONDS))
    ]
    assert [] == wrong


def test_nothing_prints_but_the_command_line():
    """`print` stands in the command line, in `make run`, and in the one place before there is a log."""
    places = {
        path.parts[0] + "/" + path.parts[1]
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert places <= {"postroom/cli", "postroom/dev", "postroom/inbox", "postroom/startup.py"}


def test_the_failpoints_are_those_that_are_listed():
    """Each name in `POINTS` is reached somewhere, and nothing else is."""
    reached = {
        ast.unparse(node.args[0]).strip("'")
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "reach"
    }
    assert set(POINTS) == reached
