"""The chart's pages and schema agree with its values, without Helm."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from postroom import __version__
from workers.worker import DRAIN_SECONDS, FLUSH_SECONDS

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "postroom"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def leaves(schema, at=()):
    """Yield the path of every key that a schema names and that holds no named keys."""
    for key, part in schema.get("properties", {}).items():
        if part.get("properties"):
            yield from leaves(part, (*at, key))
        else:
            yield (*at, key)


def schema_judge():
    """Return what raises ValueError, with the place, for values that are wrong by the schema."""
    jsonschema = pytest.importorskip("jsonschema", reason="NOT HERE: `make chart` installs it")

    def refuse(values):
        try:
            jsonschema.validate(values, SCHEMA)
        except jsonschema.ValidationError as error:
            raise ValueError(f"{error.json_path}: {error.message}") from None

    return refuse


def test_the_readme_is_the_one_made_from_the_values():
    """`make docs` was run after the last change of `values.yaml`."""
    spec = importlib.util.spec_from_file_location("chart_readme", CHART.parent / "readme.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.readme() == (CHART / "README.md").read_text()


def test_the_schema_names_exactly_the_values_there_are():
    """An option that the schema knows exists, and the defaults are right by it."""
    refuse = schema_judge()
    refuse(VALUES)
    unknown = []
    for path in leaves(SCHEMA):
        value = VALUES
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if value is None and path != ("global",):
            unknown.append(".".join(path))
    assert [] == unknown


def test_what_has_a_default_cannot_be_taken_away():
    """The schema's `complete` asks for every section, and for every value that is not empty, a list or free in form."""

    def asked(schema, values, complete, at=()):
        wanted = set()
        for key, part in schema.get("properties", {}).items():
            value = values.get(key)
            if isinstance(value, dict) and part.get("properties"):
                wanted |= {(*at, key)} | asked(
                    part, value, complete.get("properties", {}).get(key, {}), (*at, key)
                )
            elif value not in (None, "") and not isinstance(value, dict | list):
                wanted.add((*at, key))
        missing = [
            path for path in wanted if path[:-1] == at and path[-1] not in complete.get("required", [])
        ]
        assert [] == missing
        return wanted

    assert len(asked(SCHEMA, VALUES, SCHEMA["$defs"]["complete"])) > 50


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("worker.terminationGracePeriodSeconds", 144), ("worker.replica", 2), ("api.replicas", "two"),
        ("worker.scaling.minReplicas", 0), ("worker.scaling.kind", "cron"), ("logging.level", "info"),
        ("redis.appendfsync", "no"), ("image.digest", "sha256:12"), ("ports.http", 80), ("api.resources.limit", {}),
        ("secrets.env", [{"name": "A B", "secretName": "s", "key": "k"}]), ("redis.maxmemory", "400"),
        ("networkPolicy.channelPorts", ["smtp"]), ("monitoring.canaries", {"orders": {"to": "nobody", "every": "5min"}}),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused(path, value):
    """Misspelled, mistyped and dangerous values stop an install; the schema says where."""
    values = json.loads(json.dumps(VALUES))
    *above, key = path.split(".")
    place = values
    for step in above:
        place = place[step]
    place[key] = value
    refuse = schema_judge()
    with pytest.raises(ValueError, match=key):
        refuse(values)


def test_a_worker_is_given_the_time_its_longest_attempt_takes():
    """The schema's least grace is longer than what a worker takes to end by itself."""
    least = SCHEMA["properties"]["worker"]["properties"]["terminationGracePeriodSeconds"]["minimum"]
    assert least >= DRAIN_SECONDS + FLUSH_SECONDS + 5


def test_the_chart_is_of_the_version_it_installs():
    """`appVersion` is the product's own."""
    assert __version__ == yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
