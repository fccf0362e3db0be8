"""Write the chart's Grafana dashboard: `python deploy/helm/dashboard.py`.

The top row answers three questions, in this order: is mail late, whose is it, and why.
"""

import json
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parent / "postroom" / "files" / "dashboard.json"
NS = 'namespace=~"$namespace"'
AGENT = f'{NS},agent=~"$agent"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
RED, AMBER, GREEN = "red", "orange", "green"
# What each finding says, and where it is looked for. Each gives one series a finding, with a label `why`.
# An agent is one of its namespace: what another installation has says nothing of this one.
LATE = f"max by (namespace, agent) (postroom_oldest_due_seconds{{{AGENT}}}) > 30"
OURS = (
    "storage_full|unavailable|acceptance_unconfirmed|internal_error"  # refusals that no caller brings about
)
WHY = (
    (
        "no worker runs",
        (
            f"(sum by (namespace) (postroom_queue_due_messages{{{NS}}}) > 0)"
            f" unless on (namespace) (count by (namespace) (postroom_lanes_limit{{{NS}}}) > 0)"
        ),
    ),
    ("Redis does not answer", f"min by (namespace) (postroom_redis_up{{{NS}}}) == 0"),
    ("Redis is nearly full: new mail is refused", f"max by (namespace) (postroom_redis_memory_ratio{{{NS}}}) > 0.8"),
    ("its channel stands still: $cause", f"max by (namespace, agent, channel, cause) (postroom_channel_stopped{{{AGENT}}}) == 1"),
    ("a person paused it", f"max by (namespace, agent) (postroom_agent_paused{{{AGENT}}}) == 1"),
    (
        "its own rate holds mail up",
        (
            # However slow the rate: a look that brings nothing is rare then. A fast one paces without being late.
            f"sum by (namespace, agent) (rate(postroom_paced_claims_total{{{AGENT}}}[15m])) > 0"
            f" and on (namespace, agent) ({LATE})"
        ),
    ),
    (
        "all its own connections are at work: slow servers",
        (
            f"sum by (namespace, agent) (rate(postroom_channel_busy_seconds_total{{{AGENT}}}[5m]))"
            f" > 0.8 * max by (namespace, agent) (postroom_agent_connections{{{AGENT}}})"
            f" and on (namespace, agent) ({LATE})"
        ),
    ),
    (
        "most attempts are put off by the other side",
        (
            f'sum by (namespace, agent, channel) (rate(postroom_attempts_total{{{AGENT},outcome="deferred"}}[5m]))'
            f" / sum by (namespace, agent, channel) (rate(postroom_attempts_total{{{AGENT}}}[5m])) > 0.5"
        ),
    ),
    (
        "messages cannot be rendered: a template",
        (
            # A counter begins with its first event, and `increase` does not see the beginning.
            f"sum by (namespace, template) (increase(postroom_render_failures_total{{{NS}}}[15m])) > 0 or sum by (namespace, template)"
            f" (postroom_render_failures_total{{{NS}}} unless postroom_render_failures_total{{{NS}}} offset 15m)"
        ),
    ),
    (
        "all connections of the workers are busy",
        f"sum by (namespace) (postroom_lanes{{{NS}}}) / sum by (namespace) (postroom_lanes_limit{{{NS}}}) > 0.95",
    ),
    (
        "a caller repeats itself",
        (
            f"sum by (namespace, caller) (rate(postroom_idempotent_replays_total{{{NS}}}[5m])) > 1"
            f' or sum by (namespace, caller) (rate(postroom_messages_rejected_total{{{NS},code!~"{OURS}"}}[5m])) > 1'
        ),
    ),
    (
        "it gets far more mail than it did",
        (
            f"sum by (namespace, agent, caller) (rate(postroom_messages_accepted_total{{{AGENT}}}[5m]))"
            f" > 5 * sum by (namespace, agent, caller) (rate(postroom_messages_accepted_total{{{AGENT}}}[1h] offset 10m)) + 1"
        ),
    ),
)  # fmt: skip


def target(expr: str, legend: str = "", ref: str = "A", **more: Any) -> dict[str, Any]:
    """Return one query."""
    return {"datasource": SOURCE, "expr": expr, "legendFormat": legend, "refId": ref, **more}


def panel(kind: str, title: str, text: str, targets: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return one panel; `w` and `h` are its size, `unit` that of its numbers."""
    unit, steps = more.pop("unit", "short"), more.pop("steps", None)
    defaults: dict[str, Any] = {"unit": unit, "noValue": more.pop("no_value", "-")}
    if steps:
        defaults["thresholds"] = {
            "mode": "absolute",
            "steps": [{"color": color, "value": value} for value, color in steps],
        }
        defaults["color"] = {"mode": "thresholds"}
    return {
        "type": kind,
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "targets": targets,
        "size": (more.pop("w", 8), more.pop("h", 8)),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        **more,
    }


def graph(title: str, text: str, *queries: tuple[str, str], **more: Any) -> dict[str, Any]:
    """Return lines over time; a query is its expression and its legend."""
    targets = [target(expr, legend, chr(65 + n)) for n, (expr, legend) in enumerate(queries)]
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, text, targets, options=options, **more)


def table(title: str, text: str, targets: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a table of instant queries, merged."""
    for query in targets:
        query |= {"format": "table", "instant": True}
    hide = dict.fromkeys(("Time", "__name__"), True)
    steps = [{"id": "merge", "options": {}}, {"id": "organize", "options": {"excludeByName": hide}}]
    return panel("table", title, text, targets, transformations=steps, **more)


def questions() -> list[dict[str, Any]]:
    """Return the top row."""
    oldest = f"(max by (namespace, agent) (postroom_oldest_due_seconds{{{AGENT}}}) > 0)"
    # One owner of each agent, or the panel breaks while a change of it is on its way.
    owner = (
        f"topk by (namespace, agent) (1, max by (namespace, agent, owner) (postroom_agent_info{{{AGENT}}}))"
    )
    whose = (
        f"topk(10, {oldest} * on (namespace, agent) group_left (owner) {owner}"
        f" or {oldest} unless on (namespace, agent) postroom_agent_info{{{AGENT}}})"
    )
    why = []
    for n, (text, expr) in enumerate(WHY):
        source = "cause" if "$cause" in text else ""
        replaced = text.replace("$cause", "$1")
        found = f'label_replace({expr}, "why", "{replaced}", "{source}", "(.*)")'
        why.append(target(found, "", chr(65 + n)))
    return [
        panel(
            "stat", "Is mail late?", "Age of the oldest message that is due, of all agents that nobody paused.",
            [
                target(
                    f"max(max by (namespace, agent) (postroom_oldest_due_seconds{{{AGENT}}}) unless on (namespace, agent)"
                    f" max by (namespace, agent) (postroom_agent_paused{{{AGENT}}} == 1)) or vector(0)"
                )
            ],
            unit="s", steps=[(None, GREEN), (60, AMBER), (300, RED)], w=5, h=9,
            options={"colorMode": "background", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}},
        ),
        table(
            "Whose?", "The ten agents whose oldest due message is oldest, and who owns them; one without an owner is configured no more.",
            [target(whose)], unit="s", w=7, h=9, no_value="nobody's",
        ),
        table(
            "Why?", "What is found at this moment. The runbook has a section for each; `postroom why ID` tells it for one message.",
            why, w=12, h=9, no_value="nothing is wrong",
        ),
    ]  # fmt: skip


def mail() -> list[dict[str, Any]]:
    """Return the row of what happens to mail."""
    return [
        graph(
            "Accepted and ended", "Messages a second.",
            (f"sum(rate(postroom_messages_accepted_total{{{AGENT}}}[$__rate_interval]))", "accepted"),
            (f"sum by (state) (rate(postroom_messages_finished_total{{{AGENT}}}[$__rate_interval]))", "{{state}}"),
            unit="ops",
        ),
        graph(
            "Accepted by caller and agent", "Who sends how much: a flood shows here first.",
            (f"topk(10, sum by (caller, agent) (rate(postroom_messages_accepted_total{{{AGENT}}}[$__rate_interval])))", "{{caller}} → {{agent}}"),
            unit="ops",
        ),
        graph(
            "Waiting, and due", "Waiting mail includes what is scheduled or between attempts; due is what should be going out now.",
            (f"sum(max by (agent, priority) (postroom_queue_messages{{{AGENT}}}))", "waiting"),
            (f"sum by (priority) (max by (agent, priority) (postroom_queue_due_messages{{{AGENT}}}))", "due, {{priority}}"),
        ),
        graph(
            "Oldest due by agent", "The ten oldest.",
            (f"topk(10, max by (agent, priority) (postroom_oldest_due_seconds{{{AGENT}}}))", "{{agent}} {{priority}}"),
            unit="s",
        ),
        graph(
            "From accepted to sent", "Quantiles by retry profile, of all agents; waiting for `send_at` is in it.",
            *(
                (f"histogram_quantile({q}, sum by (retry_profile, le) (rate(postroom_message_latency_seconds_bucket{{{NS}}}[$__rate_interval])))", f"{{{{retry_profile}}}} p{q * 100:g}")
                for q in (0.5, 0.95, 0.99)
            ),
            unit="s",
        ),
        graph(
            "From accepted to sent, by agent", "The mean of each agent's sent messages: the ten slowest.",
            (
                (
                    f"topk(10, sum by (agent) (rate(postroom_sent_age_seconds_total{{{AGENT}}}[$__rate_interval]))"
                    f' / sum by (agent) (rate(postroom_messages_finished_total{{{AGENT},state="sent"}}[$__rate_interval])))'
                ),
                "{{agent}}",
            ),
            unit="s",
        ),
        graph(
            "Canaries", "Since the last one of each agent that arrived at its provider, in intervals (above 2 is an alert); and its time from accepted to sent.",
            (
                (
                    f"(time() - max by (agent) (postroom_canary_last_good_timestamp_seconds{{{AGENT}}}))"
                    f" / max by (agent) (postroom_canary_interval_seconds{{{AGENT}}})"
                ),
                "{{agent}} intervals",
            ),
            (f'max by (agent) (postroom_canary_duration_seconds{{{AGENT},stage="sent"}})', "{{agent}} seconds"),
            no_value="no agent has one",
        ),
        graph(
            "Ended badly", "Failed, expired, unconfirmed; and outcomes whose fate is unknown.",
            (f'sum by (agent, state) (increase(postroom_messages_finished_total{{{AGENT},state=~"failed|expired|unconfirmed"}}[$__rate_interval]))', "{{agent}} {{state}}"),
            (f"sum by (agent) (increase(postroom_ambiguous_outcomes_total{{{AGENT}}}[$__rate_interval]))", "{{agent}} ambiguous"),
        ),
    ]  # fmt: skip


def channels() -> list[dict[str, Any]]:
    """Return the row of the ways out."""
    return [
        graph(
            "Attempts by outcome", "By agent and channel. `deferred` is put off, `refused` is for good.",
            (f"sum by (agent, channel, outcome, reply_class) (rate(postroom_attempts_total{{{AGENT}}}[$__rate_interval]))", "{{agent}}/{{channel}} {{outcome}} {{reply_class}}"),
            unit="ops",
        ),
        graph(
            "Time of an attempt, by channel", "The mean of each agent's channels: the ten slowest. Connecting is not in it.",
            (
                (
                    f"topk(10, sum by (agent, channel) (rate(postroom_channel_busy_seconds_total{{{AGENT}}}[$__rate_interval]))"
                    f" / sum by (agent, channel) (rate(postroom_attempts_total{{{AGENT}}}[$__rate_interval])))"
                ),
                "{{agent}}/{{channel}}",
            ),
            unit="s",
        ),
        graph(
            "Time of an attempt", "Quantiles by kind of channel, of all agents.",
            *(
                (f"histogram_quantile({q}, sum by (kind, le) (rate(postroom_attempt_duration_seconds_bucket{{{NS}}}[$__rate_interval])))", f"{{{{kind}}}} p{q * 100:g}")
                for q in (0.5, 0.95)
            ),
            unit="s",
        ),
        graph(
            "Connections in use", "The mean number at work over each channel: at its agent's `connections`, those are what it waits for. The ten busiest.",
            (f"topk(10, sum by (agent, channel) (rate(postroom_channel_busy_seconds_total{{{AGENT}}}[$__rate_interval])))", "{{agent}}/{{channel}}"),
        ),
        graph(
            "Faults of channels", "By cause: connect, auth, quota, throttle, policy.",
            (f"sum by (agent, channel, cause) (increase(postroom_channel_faults_total{{{AGENT}}}[$__rate_interval]))", "{{agent}}/{{channel}} {{cause}}"),
            (f"max by (agent, channel, cause) (postroom_channel_stopped{{{AGENT}}})", "stopped: {{agent}}/{{channel}} {{cause}}"),
        ),
    ]  # fmt: skip


def api() -> list[dict[str, Any]]:
    """Return the row of the API."""
    return [
        graph(
            "Requests by status", "Requests a second.",
            (f"sum by (status) (rate(postroom_http_requests_total{{{NS}}}[$__rate_interval]))", "{{status}}"),
            unit="reqps",
        ),
        graph(
            "Time to answer a POST", "Quantiles; and requests in flight.",
            *(
                (f'histogram_quantile({q}, sum by (le) (rate(postroom_http_request_duration_seconds_bucket{{{NS},route="/v1/messages",method="POST"}}[$__rate_interval])))', f"p{q * 100:g}")
                for q in (0.5, 0.99)
            ),
            (f"sum(postroom_http_in_flight{{{NS}}})", "in flight"),
            unit="s",
        ),
        graph(
            "Refused and repeated", "By caller and problem code; replays are repeats that were right.",
            (f"topk(10, sum by (caller, code) (rate(postroom_messages_rejected_total{{{NS}}}[$__rate_interval])))", "{{caller}} {{code}}"),
            (f"sum by (caller) (rate(postroom_idempotent_replays_total{{{NS}}}[$__rate_interval]))", "{{caller}} replay"),
            (f"sum by (reason) (rate(postroom_auth_failures_total{{{NS}}}[$__rate_interval]))", "auth: {{reason}}"),
            unit="ops",
        ),
    ]  # fmt: skip


def house() -> list[dict[str, Any]]:
    """Return the row of workers and Redis."""
    return [
        graph(
            "Workers", "Connections open and allowed, agents at work, and what was left behind.",
            (f"sum(postroom_lanes{{{NS}}})", "connections"),
            (f"sum(postroom_lanes_limit{{{NS}}})", "allowed"),
            (f"sum(postroom_rounds_running{{{NS}}})", "agents at work"),
            (f"count(postroom_lanes_limit{{{NS}}})", "workers"),
            (f"sum(increase(postroom_lease_expired_total{{{NS}}}[$__rate_interval]))", "leases run out"),
            (f"sum(increase(postroom_sweeper_rearmed_total{{{NS}}}[$__rate_interval]))", "woken by the sweep"),
        ),
        graph(
            "Redis: time of a round trip, p99", "Of accepts, and of the workers' work; and calls that share one.",
            (f"histogram_quantile(0.99, sum by (op, le) (rate(postroom_redis_op_duration_seconds_bucket{{{NS}}}[$__rate_interval])))", "{{op}}"),
            unit="s",
        ),
        graph(
            "Redis: calls that share a round trip", "Group commit: the mean of each kind.",
            (f"sum by (op) (rate(postroom_redis_batch_calls_sum{{{NS}}}[$__rate_interval])) / sum by (op) (rate(postroom_redis_batch_calls_count{{{NS}}}[$__rate_interval]))", "{{op}}"),
        ),
        graph(
            "Redis: memory, errors", "From 85 % of maxmemory on new mail is refused.",
            (f"max(postroom_redis_memory_ratio{{{NS}}})", "memory used"),
            (f"sum by (kind) (increase(postroom_redis_errors_total{{{NS}}}[$__rate_interval]))", "{{kind}}"),
            (f"min(postroom_redis_up{{{NS}}})", "up"),
        ),
        graph(
            "Processes", "Memory, and CPU in cores.",
            (f"sum by (pod) (rate(process_cpu_seconds_total{{{NS}}}[$__rate_interval]))", "{{pod}} cpu"),
            (f"sum by (pod) (process_resident_memory_bytes{{{NS}}}) / 1e9", "{{pod}} GB"),
        ),
        graph(
            "Conservation", "Accepted messages that neither ended nor wait. Anything but 0 is a defect or a loss.",
            (f"max by (agent) (postroom_messages_unaccounted{{{AGENT}}}) != 0", "{{agent}}"),
            no_value="everything is accounted for",
        ),
    ]  # fmt: skip


def dashboard() -> dict[str, Any]:
    """Return the whole dashboard."""
    return {
        "uid": "postroom",
        "title": "Postroom",
        "tags": ["postroom", "mail"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
                _variable("namespace", "label_values(postroom_build_info, namespace)"),
                _variable("agent", 'label_values(postroom_agent_info{namespace=~"$namespace"}, agent)'),
            ]
        },
        "annotations": {
            "list": [
                {
                    "name": "Configuration reloaded",
                    "datasource": SOURCE,
                    "enable": True,
                    "iconColor": "blue",
                    "expr": f"max(changes(postroom_config_generation{{{NS}}}[1m])) > 0",
                    "titleFormat": "configuration reloaded",
                }
            ]
        },
        "panels": _laid_out(
            ("", questions()),
            ("Mail", mail()),
            ("Channels", channels()),
            ("API", api()),
            ("Workers and Redis", house()),
        ),
    }


def _laid_out(*rows: tuple[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the panels at their places: rows below each other, under their titles, as wide as the grid."""
    panels: list[dict[str, Any]] = []
    y = 0

    def place(one: dict[str, Any], x: int, w: int, h: int) -> None:
        panels.append(one | {"id": len(panels) + 1, "gridPos": {"x": x, "y": y, "w": w, "h": h}})

    for title, row in rows:
        if title:
            place({"type": "row", "title": title, "collapsed": False, "panels": []}, 0, WIDTH, 1)
            y += 1
        x = h = 0
        for one in row:
            w, h = one.pop("size")
            if x + w > WIDTH:
                x, y = 0, y + h
            place(one, x, w, h)
            x += w
        y += h
    return panels


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": query,
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


if __name__ == "__main__":
    DASHBOARD.write_text(json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n")
