"""Alerts, dashboard and runbook: they name what exists, and say what to do."""

import importlib.util
import json
import re
import shlex
import shutil

import pytest
import yaml

from postroom.cli.main import build_parser
from postroom.errors import Code
from tests.chart.conftest import CHART, ROOT, judge, pods, rendered, run, the
from tests.stack import Stack, sample

FILES = CHART / "files"
RULES = yaml.safe_load((FILES / "alerts.yaml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
HEADINGS = re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)
METRIC = re.compile(r"\b(?:postroom|process)_[a-z_]+\b")


def expressions():
    """Yield where and what of every PromQL expression, the dashboard's variables filled in."""
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], _filled(target["expr"])
    for note in DASHBOARD["annotations"]["list"]:
        yield note["name"], _filled(note["expr"])
    scaled = the(rendered("ha"), "ScaledObject") if _helm_is_here() else None
    if scaled:
        yield "ScaledObject", scaled["spec"]["triggers"][0]["metadata"]["query"]


def _helm_is_here():
    return any((ROOT / ".venv" / "judges" / name).exists() for name in ("helm3", "helm4")) or shutil.which(
        "helm"
    )


def _filled(expr):
    return expr.replace("$__rate_interval", "5m").replace("$namespace", "mail").replace("$agent", "orders")


def anchor(heading):
    """Return the anchor of a heading as Markdown renderers make it."""
    return re.sub(r"[^a-z0-9_-]", "", heading.lower().replace(" ", "-"))


def test_every_expression_is_promql():
    """Rules, dashboard and scaling are parsed by a parser of their own."""
    parser = pytest.importorskip("promql_parser", reason="NOT HERE: `make chart` installs it")
    parsed = 0
    for where, expr in expressions():
        try:
            parser.parse(expr)
        except ValueError as error:
            pytest.fail(f"{where}: {error}: {expr}")
        parsed += 1
    assert parsed > 50


@pytest.mark.asyncio(loop_scope="session")
async def test_every_metric_they_name_is_exported_by_a_running_system(stack: Stack):
    """A scrape of the API and of a worker declares every family that rules, dashboard and chart ask for."""
    await stack.until_finished(await stack.accept(sample("chart-1")))
    exported = set()
    for port in (stack.metrics_port, *stack.worker_metrics.values()):
        async with stack.session.get(f"http://127.0.0.1:{port}/metrics") as response:
            exported |= set(re.findall(r"^# TYPE (\S+) ", await response.text(), re.MULTILINE))
    unknown = {
        (where, name)
        for where, expr in expressions()
        for name in METRIC.findall(expr)
        if name not in exported and re.sub(r"_(bucket|sum|count)$", "", name) not in exported
    }
    assert set() == unknown


def test_every_alert_has_a_severity_a_sentence_and_a_section():
    """About a dozen alerts; each links to a section of the runbook that exists."""
    assert 10 <= len(ALERTS) <= 16
    anchors = {anchor(heading) for heading in HEADINGS}
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
        assert rule["annotations"]["summary"]
        base, _, at = rule["annotations"]["runbook_url"].partition("#")
        assert ("RUNBOOK", True) == (base, at in anchors), rule["alert"]
        assert at == anchor(rule["alert"])


def test_every_problem_code_has_a_section_and_no_section_has_no_code():
    """The runbook says of each code what it means and what to do."""
    start = HEADINGS.index("Problem codes")
    assert sorted(map(str, Code)) == sorted(HEADINGS[start + 1 :])


def test_every_link_of_the_runbook_leads_somewhere():
    """Anchors in it exist, files beside it too."""
    anchors = {anchor(heading) for heading in HEADINGS}
    for target in re.findall(r"\]\(([^)]+)\)", RUNBOOK):
        path, _, at = target.partition("#")
        if path:
            text = (ROOT / "docs" / path).read_text()
            assert not at or at in {anchor(h) for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}, target
        else:
            assert at in anchors, target


def commands():
    """Yield every `postroom` command of the runbook, its placeholders filled in."""
    for block in re.findall(r"```sh\n(.*?)```", RUNBOOK, re.DOTALL):
        for line in block.splitlines():
            for part in re.split(r"[;|]", line.partition("#")[0]):
                yield part.strip()
    yield from re.findall(r"`([^`\n]+)`", RUNBOOK)


def test_the_runbooks_commands_are_ones():
    """Each `postroom …` in it is taken by the command line's own parser."""
    parser = build_parser()
    seen = 0
    for command in commands():
        words = shlex.split(command.replace("…", "x")) if re.match(r"(pr|postroom) [a-z]", command) else []
        if (words and words[-1] != "x") or (words and len(words) > 2):
            try:
                parser.parse_args(words[1:])
            except SystemExit:
                pytest.fail(f"not a command: {command}")
            seen += 1
    assert seen >= 12


def prlogs():
    """Return the runbook's function that prints log lines."""
    return re.search(r"^prlogs\(\) \{.*?^\}$", RUNBOOK, re.MULTILINE | re.DOTALL)[0]


def test_log_lines_are_read_from_the_pods_that_write_them():
    """Not from the chart's own Redis, which is part of the release too."""
    wanted = re.search(r"component in \((.+?)\)", prlogs())[1].split(", ")
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(rendered("small"))}
    found = {
        name
        for name, have in labels.items()
        if have.get("app.kubernetes.io/part-of") == "postroom"
        and have["app.kubernetes.io/component"] in wanted
    }
    assert {"shop-postroom-api", "shop-postroom-worker"} == found
    assert "shop-postroom-redis" in labels


def test_a_line_that_is_no_json_does_not_end_the_reading(tmp_path):
    """A crash's traceback between log lines is left out; what the sections then ask is asked of the others."""
    judge("jq")
    lines = (
        '{"event": "a"}',
        "Traceback (most recent call last):",
        '{"event": "cut o',
        '"text"',
        '{"event": "b"}',
    )
    (tmp_path / "kubectl").write_text("#!/bin/sh\ncat <<'E'\n" + "\n".join(lines) + "\nE\n")
    (tmp_path / "kubectl").chmod(0o755)
    told = run(
        "sh", "-c", f"PATH={tmp_path}:$PATH\n{prlogs()}\nprlogs | jq -r 'select(.event|test(\".\")) | .event'"
    )
    assert (0, ["a", "b"]) == (told.returncode, told.stdout.split()), told.stderr


def test_the_dashboard_is_the_generated_one_and_its_top_row_asks_the_three_questions():
    """`make docs` was run; the first row is late, whose, why; panels do not overlap and fit the grid."""
    spec = importlib.util.spec_from_file_location("dashboard", CHART.parent / "dashboard.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.dashboard() == DASHBOARD
    assert ["Is mail late?", "Whose?", "Why?"] == [p["title"] for p in DASHBOARD["panels"][:3]]
    assert {0} == {p["gridPos"]["y"] for p in DASHBOARD["panels"][:3]}
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len(DASHBOARD["panels"]) == len({panel["id"] for panel in DASHBOARD["panels"]})


def assert_finds(expr, series, found, folder):
    """Have promtool evaluate an expression 20 minutes after the first samples, one a minute."""
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": numbers} for name, numbers in series.items()],
        "promql_expr_test": [
            {
                "expr": expr,
                "eval_time": "20m",
                "exp_samples": [{"labels": labels, "value": value} for labels, value in found.items()],
            }
        ],
    }
    (folder / "asked.yaml").write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    done = run(judge("promtool"), "test", "rules", folder / "asked.yaml")
    assert 0 == done.returncode, done.stdout + done.stderr


def asked(panel, why=None):
    """Return the expression of a panel of the top row, the one that finds `why` where it finds several things."""
    (found,) = [
        target["expr"]
        for one in DASHBOARD["panels"][:3]
        if one["title"] == panel
        for target in one["targets"]
        if why is None or f'"why", "{why}' in target["expr"]
    ]
    return found.replace("$namespace", ".*").replace("$agent", ".*")


PACED, LANES = "its own rate holds mail up", "all its own connections are at work"
LATE_ORDERS = {'postroom_oldest_due_seconds{namespace="prod",agent="orders",priority="normal"}': "0+60x30"}
OF_A = {'postroom_agent_info{namespace="prod",agent="orders",owner="a"}': "1x30"}
OF_B = {'postroom_agent_info{namespace="staging",agent="orders",owner="b"}': "1x30"}
AT_WORK = {
    'postroom_agent_connections{namespace="prod",agent="orders"}': "10x30",
    'postroom_channel_busy_seconds_total{namespace="prod",agent="orders",channel="relay"}': "0+594x30",
}
PACES = {'postroom_paced_claims_total{namespace="prod",agent="orders"}': "0+1x30"}
ORDERS = '{namespace="prod",agent="orders"'


@pytest.mark.parametrize(
    ("panel", "why", "series", "found"),
    [
        ("Whose?", None, LATE_ORDERS | OF_A, {ORDERS + ',owner="a"}': 1200}),
        ("Whose?", None, LATE_ORDERS | OF_A | OF_B, {ORDERS + ',owner="a"}': 1200}),
        ("Whose?", None, LATE_ORDERS | OF_B, {ORDERS + "}": 1200}),
        ("Is mail late?", None, LATE_ORDERS | {'postroom_agent_paused{namespace="staging",agent="orders"}': "1x30"}, {"{}": 1200}),
        ("Is mail late?", None, LATE_ORDERS | {'postroom_agent_paused{namespace="prod",agent="orders"}': "1x30"}, {"{}": 0}),
        (
            "Why?", "no worker runs",
            {'postroom_queue_due_messages{namespace="prod",agent="orders"}': "7x30", 'postroom_lanes_limit{namespace="staging"}': "200x30"},
            {'{namespace="prod",why="no worker runs"}': 7},
        ),
        ("Why?", PACED, LATE_ORDERS | PACES, {f'{ORDERS},why="{PACED}"}}': 1 / 60}),
        ("Why?", PACED, PACES, {}),
        ("Why?", LANES, LATE_ORDERS | AT_WORK, {f'{ORDERS},why="{LANES}: slow servers"}}': 9.9}),
        ("Why?", LANES, AT_WORK, {}),
        (
            "Why?", LANES, LATE_ORDERS | {series: numbers.replace("594", "300") for series, numbers in AT_WORK.items()}, {},
        ),
        (
            "Why?", "a caller repeats itself",
            {
                f'postroom_messages_rejected_total{{namespace="prod",caller="{code}",code="{code}"}}': "0+120x30"
                for code in ("storage_full", "unavailable", "acceptance_unconfirmed", "rate_limited")
            },
            {'{namespace="prod",caller="rate_limited",why="a caller repeats itself"}': 2},
        ),
    ],
)  # fmt: skip
def test_the_top_row_finds_what_it_asks_for(panel, why, series, found, tmp_path):
    """Over several namespaces, for agents without an owner, and at the agent's own limits."""
    assert_finds(asked(panel, why), series, found, tmp_path)


def test_an_agent_between_two_owners_has_one_row(tmp_path):
    """While the old exporter and the new one tell of different configurations, either will do."""
    of_another = {'postroom_agent_info{namespace="prod",agent="orders",owner="new",pod="x"}': "1x30"}
    assert_finds(f"count({asked('Whose?')})", LATE_ORDERS | OF_A | of_another, {"{}": 1}, tmp_path)


PAUSED = {'postroom_agent_paused{namespace="mail",agent="orders"}': "1x30"}
STOPPED = {
    'postroom_channel_stopped{namespace="mail",agent="orders",channel="relay",cause="throttle"}': "1x30"
}
SENDS = {
    'postroom_attempts_total{namespace="mail",agent="orders",channel="backup",outcome="sent",reply_class="2xx"}': "0+9x30"
}


@pytest.mark.parametrize(
    ("series", "pods_wanted"),
    [
        (None, 2), (PAUSED, 2), (STOPPED, 2), (STOPPED | SENDS, 42), ({}, 42),
        ({'postroom_agent_paused{namespace="other",agent="orders"}': "1x30"}, 42),
    ],
)  # fmt: skip
def test_workers_are_added_for_mail_that_they_can_send(series, pods_wanted, tmp_path):
    """One for each 30 s of the oldest, beyond two of the three there always are; not for what stands still."""
    late = {'postroom_oldest_due_seconds{namespace="mail",agent="orders",priority="normal"}': "0+60x30"}
    told = {} if series is None else late | series
    (trigger,) = the(rendered("ha"), "ScaledObject")["spec"]["triggers"]
    assert "30" == trigger["metadata"]["threshold"]
    assert_finds(trigger["metadata"]["query"], told, {"{}": 30 * pods_wanted}, tmp_path)


def test_promtool_checks_the_rules_and_runs_their_tests(tmp_path):
    """As the chart renders them, each for its own namespace, and by unit tests of each alert."""
    promtool = judge("promtool")
    spec = the(rendered("full"), "PrometheusRule")["spec"]
    rules = {rule["alert"]: rule["expr"] for group in spec["groups"] for rule in group["rules"]}
    assert rules["PostroomBlind"].startswith(
        'absent(postroom_exporter{namespace="mail"}) unless on () max(postroom_redis_up{'
    )
    assert "NAMESPACE" not in yaml.safe_dump(spec)
    (tmp_path / "rendered.yaml").write_text(yaml.safe_dump(spec))
    done = run(promtool, "check", "rules", tmp_path / "rendered.yaml")
    assert 0 == done.returncode, done.stdout + done.stderr
    shutil.copy(FILES / "alerts.yaml", tmp_path)
    shutil.copy(CHART.parent / "alerts_test.yaml", tmp_path)
    done = run(promtool, "test", "rules", tmp_path / "alerts_test.yaml")
    assert 0 == done.returncode, done.stdout + done.stderr
    tested = (CHART.parent / "alerts_test.yaml").read_text()
    assert [] == [rule["alert"] for rule in ALERTS if f"alertname: {rule['alert']}" not in tested]
