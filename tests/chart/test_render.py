"""What the chart renders to: what holds for every pod, and what the options do."""

import re
import shutil
import tomllib

import pytest
import yaml

from postroom.config.load import load_config
from postroom.settings import read_settings
from tests.chart.conftest import CASES, CHART, any_helm, pods, rendered, run, template, the

SECRET_WORDS = re.compile(r"password|token|secret", re.IGNORECASE)


def container(objects, name):
    """Return the first container of what is called so."""
    return dict(pods(objects))[name]["spec"]["containers"][0]


def environment(box):
    """Return a container's variables as far as they have values."""
    return {entry["name"]: entry["value"] for entry in box.get("env", []) if "value" in entry}


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_locked_down(case):
    """No root, no writable root, no capabilities, no token, no links to services; memory is bounded, CPU is not."""
    for name, pod in pods(rendered(case)):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] >= 10001 - 10 * ("redis" in name), name
        for box in spec["containers"]:
            security = box["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert ["ALL"] == security["capabilities"]["drop"]
            assert "RuntimeDefault" == security["seccompProfile"]["type"]
            assert "memory" in box["resources"]["limits"]
            assert "cpu" not in box["resources"]["limits"]
            assert {"cpu", "memory"} <= set(box["resources"]["requests"])


@pytest.mark.parametrize("case", CASES)
def test_selectors_find_the_pods_they_are_for(case):
    """Each Service, Deployment, budget and policy selects by labels that pods of this release have."""
    objects = rendered(case)
    labels = [pod["metadata"]["labels"] for _, pod in pods(objects)]
    for o in objects:
        spec = o.get("spec", {})
        wanted = {
            "Service": spec.get("selector"),
            "Deployment": spec.get("selector", {}).get("matchLabels"),
            "StatefulSet": spec.get("selector", {}).get("matchLabels"),
            "PodDisruptionBudget": spec.get("selector", {}).get("matchLabels"),
            "NetworkPolicy": spec.get("podSelector", {}).get("matchLabels"),
        }.get(o["kind"])
        if wanted is not None:
            found = [have for have in labels if wanted.items() <= have.items()]
            assert found, (o["kind"], o["metadata"]["name"])


def test_a_deployment_never_takes_the_other_ones_pods():
    """Selectors of the API and of the workers do not overlap, nor do those of two releases."""
    objects = rendered("minimal")
    api, worker = (the(objects, "Deployment", f"shop-postroom-{c}")["spec"] for c in ("api", "worker"))
    assert not api["selector"]["matchLabels"].items() <= worker["template"]["metadata"]["labels"].items()
    assert not worker["selector"]["matchLabels"].items() <= api["template"]["metadata"]["labels"].items()
    assert "shop" == api["selector"]["matchLabels"]["app.kubernetes.io/instance"]


@pytest.mark.parametrize("case", CASES)
def test_probes_ask_the_metrics_port_and_grace_is_longer_than_the_work(case):
    """Liveness is `/livez`, which never asks Redis; a pod is given the time its work takes to end."""
    for name, pod in pods(rendered(case)):
        if not name.endswith(("-api", "-worker")):
            continue
        spec = pod["spec"]
        (box,) = spec["containers"]
        assert {"path": "/livez", "port": "metrics"} == box["livenessProbe"]["httpGet"]
        assert {"path": "/livez", "port": "metrics"} == box["startupProbe"]["httpGet"]
        assert {"path": "/readyz", "port": "metrics"} == box["readinessProbe"]["httpGet"]
        assert box["startupProbe"]["periodSeconds"] * box["startupProbe"]["failureThreshold"] >= 60
        if name.endswith("-worker"):
            assert spec["terminationGracePeriodSeconds"] >= 145
        else:
            wait = box["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert spec["terminationGracePeriodSeconds"] >= wait + 17


def test_an_old_kubernetes_waits_without_a_shell():
    """Before 1.30 there is no `sleep` action: the image's own interpreter waits."""
    hook = container(rendered("minimal", "--kube-version", "1.25.0"), "shop-postroom-api")["lifecycle"][
        "preStop"
    ]
    assert ["python", "-c", "import time; time.sleep(8)"] == hook["exec"]["command"]


@pytest.mark.parametrize("case", CASES)
def test_every_variable_is_one_the_processes_know(case, tmp_path):
    """What the chart sets is read: settings come out as they were meant, and the configuration loads."""
    objects = rendered(case)
    for name, pod in pods(objects):
        if not name.endswith(("-api", "-worker", "-check")):
            continue
        told = environment(pod["spec"]["containers"][0])
        settings = read_settings(told)
        ports = {
            port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0].get("ports", [])
        }
        assert ports.get("metrics", settings.metrics_port) == settings.metrics_port
        assert ports.get("http", settings.port) == settings.port
        assert "0.0.0.0" == settings.host
        known = {
            "CONFIG",
            "HOST",
            "PORT",
            "METRICS_PORT",
            "LOG_FORMAT",
            "LOG_LEVEL",
            "REDIS_URL",
            "ARQ_URL",
            "TEMPLATES_DIR",
            "TRACES",
        }
        assert {n for n in told if n.startswith("POSTROOM_")} <= {f"POSTROOM_{n}" for n in known}
    for o in objects:
        if o["kind"] == "ConfigMap" and "postroom.toml" in o["data"]:
            (tmp_path / "postroom.toml").write_text(o["data"]["postroom.toml"])
            environ = told | {"ORDERS_SMTP_PASSWORD": "x", "POSTROOM_REDIS_URL": "redis://r:6379/0"}
            assert (
                told["POSTROOM_TEMPLATES_DIR"]
                == load_config(tmp_path / "postroom.toml", environ).templates.dir
            )


@pytest.mark.parametrize("case", CASES)
def test_no_secret_stands_in_a_config_map_or_a_variable(case):
    """Secrets are referenced; the chart makes no Secret of its own."""
    for o in rendered(case):
        assert "Secret" != o["kind"]
        if o["kind"] == "ConfigMap":
            for text in o["data"].values():
                for line in text.splitlines():
                    assert not SECRET_WORDS.search(line) or "env =" in line or "file =" in line, line
    for name, pod in pods(rendered(case)):
        for entry in pod["spec"]["containers"][0].get("env", []):
            if SECRET_WORDS.search(entry["name"]):
                assert "secretKeyRef" in entry.get("valueFrom", {}), (name, entry["name"])


def test_a_changed_configuration_restarts_the_pods():
    """Its checksum is in the pod, and only there: the selector stays."""
    sums = set()
    for extra in ("", "environment = 'x'\n"):
        toml = f"{extra}[redis]\nurl = 'redis://redis:6379'\n"
        deployment = the(
            rendered("minimal", "--set-string", f"config.toml={toml}"), "Deployment", "shop-postroom-api"
        )
        sums.add(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"])
    assert 2 == len(sums)


def test_scaling_takes_the_count_of_pods_away_from_the_deployment():
    """Where something scales a Deployment, an upgrade does not reset it."""
    objects = rendered("ha")
    for component in ("api", "worker"):
        assert "replicas" not in the(objects, "Deployment", f"shop-postroom-{component}")["spec"]
    scaled = the(objects, "ScaledObject")["spec"]
    assert "shop-postroom-worker" == scaled["scaleTargetRef"]["name"]
    behavior = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 130
    assert "cooldownPeriod" not in scaled  # which is about the way to 0 pods only
    assert (
        "External"
        == the(rendered("full"), "HorizontalPodAutoscaler", "mailroom-worker")["spec"]["metrics"][0]["type"]
    )


def test_a_fallback_goes_with_a_trigger_that_keda_takes_it_for():
    """Before 2.18 its webhook refuses one without a trigger of the kind AverageValue."""
    scaled = the(rendered("ha"), "ScaledObject")["spec"]
    assert 3 == scaled["fallback"]["replicas"]
    assert ["AverageValue"] == [trigger["metricType"] for trigger in scaled["triggers"]]


def test_a_single_pod_has_no_budget():
    """A disruption budget for one pod would only block the drain of its node."""
    assert [] == [o for o in rendered("small") if o["kind"] == "PodDisruptionBudget"]


def test_the_api_takes_only_whom_it_is_told_and_the_test_pod():
    """`networkPolicy.apiFrom` shuts everybody else out, but not `helm test`."""
    policy = the(rendered("ha"), "NetworkPolicy", "shop-postroom-api")["spec"]["ingress"]
    (callers,) = [rule["from"] for rule in policy if rule["ports"] == [{"port": "http"}]]
    assert 2 == len(callers)
    test_labels = dict(pods(rendered("ha")))["shop-postroom-test"]["metadata"]["labels"]
    assert callers[0]["podSelector"]["matchLabels"].items() <= test_labels.items()
    worker = the(rendered("ha"), "NetworkPolicy", "shop-postroom-worker")["spec"]
    assert [] == [rule for rule in worker["ingress"] if {"port": "http"} in rule["ports"]]
    assert [587] == [p["port"] for rule in worker["egress"] for p in rule["ports"] if p["port"] == 587]


@pytest.mark.parametrize("case", [case for case in CASES if case != "small"])
@pytest.mark.parametrize("ports", ["redisPorts", "channelPorts"])
def test_no_ports_is_nothing_let_out(case, ports):
    """A rule without ports and peers would let everything out."""
    objects = rendered(case, "--set-json", f"networkPolicy.{ports}=[]")
    policies = [o["spec"] for o in objects if o["kind"] == "NetworkPolicy"]
    assert [] == [
        rule for spec in policies for rule in spec["egress"] if not (rule.get("ports") or rule.get("to"))
    ]


def test_every_label_is_given_once_and_the_nearest_wins():
    """Strictly read: a mapping that names a key twice is none to Kubernetes."""
    more = (
        "--set",
        "commonLabels.team=mail,commonLabels.tier=x,api.podLabels.team=api,monitoring.serviceMonitor.labels.team=ops",
    )
    told = template(any_helm(), "ha", *more).stdout
    for document in told.split("\n---\n"):
        for labels in re.findall(r"^( *)labels:\n((?:\1  .*\n)+)", document, re.MULTILINE):
            keys = re.findall(r"^ *(\S+):", labels[1], re.MULTILINE)
            assert len(keys) == len(set(keys)), document
    objects = rendered("ha", *more)
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(objects)}
    assert ("api", "x") == tuple(labels["shop-postroom-api"][key] for key in ("team", "tier"))
    assert "mail" == labels["shop-postroom-worker"]["team"]
    assert "ops" == the(objects, "ServiceMonitor")["metadata"]["labels"]["team"]


def test_an_upgrade_of_the_chart_leaves_its_redis_running(tmp_path):
    """Nothing in the pod of the only Redis is of a version of chart or product."""
    newer = tmp_path / "postroom"
    shutil.copytree(CHART, newer)
    chart = (newer / "Chart.yaml").read_text()
    (newer / "Chart.yaml").write_text(re.sub(r"(?m)^(version|appVersion): .*$", r"\1: 99.9.9", chart))
    specs = []
    for at in (CHART, newer):
        done = run(any_helm(), "template", "shop", at, "--values", CHART / "ci" / "small-values.yaml")
        specs.append(the([o for o in yaml.safe_load_all(done.stdout) if o], "StatefulSet")["spec"])
    assert specs[0] == specs[1]


def test_the_small_redis_keeps_what_it_is_given():
    """AOF `always`, no eviction, a limit, a volume; its password goes by reference on both sides."""
    objects = rendered("small")
    conf = the(objects, "ConfigMap", "shop-postroom-redis")["data"]["redis.conf"]
    for line in ("appendonly yes", "appendfsync always", "maxmemory-policy noeviction", "maxmemory 400mb"):
        assert line in conf
    assert the(objects, "StatefulSet")["spec"]["volumeClaimTemplates"]
    told = environment(container(objects, "shop-postroom-worker"))
    assert "redis://:$(POSTROOM_REDIS_PASSWORD)@shop-postroom-redis:6379/0" == told["POSTROOM_REDIS_URL"]
    names = [entry["name"] for entry in container(objects, "shop-postroom-worker")["env"]]
    assert names.index("POSTROOM_REDIS_PASSWORD") < names.index("POSTROOM_REDIS_URL")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "api.preStopSeconds=20"], "at least api.preStopSeconds + 17 = 37"),
        (["--set", "worker.terminationGracePeriodSeconds=90"], "145"),
        (["--set", "config.toml="], "no configuration"),
        (["--set", "config.existingConfigMap=x"], "exclude each other"),
        (["--set", "redis.enabled=true,redis.external.existingSecret=x"], "exclude each other"),
        (["--set-string", "config.toml=environment = 'x'"], "no Redis"),
        (["--set", "worker.scaling.minReplicas=9"], "larger than maxReplicas"),
        (["--set", "worker.scaling.minReplicas=0"], "minReplicas"),
        (["--set", "ports.metrics=8080"], "must differ"),
        (["--set", "worker.replica=3"], "replica"),
        (["--set", "worker.terminationGracePeriodSeconds=null"], "terminationGracePeriodSeconds"),
        (["--set-json", "monitoring=null"], "monitoring"),
        (["--set", "api.pdb.minAvailable=2"], "api.pdb.minAvailable is 2 of 2 pods"),
        (["--set", "worker.pdb.minAvailable=4,worker.scaling.kind=keda,worker.scaling.minReplicas=3"], "4 of 3 pods"),
        (["--set", r"commonLabels.app\.kubernetes\.io/name=x"], "commonLabels has app.kubernetes.io/name"),
        (["--set", r"api.podLabels.app\.kubernetes\.io/component=x"], "api.podLabels has app.kubernetes.io/component"),
        (["--set", r"worker.podLabels.postroom/scraped=no"], "worker.podLabels has postroom/scraped"),
        (["--set", r"monitoring.dashboard.labels.helm\.sh/chart=x"], "monitoring.dashboard.labels has helm.sh/chart"),
        (["--set", "config.toml=,config.existingConfigMap=x,monitoring.canaries.orders.to=a@b.example"], "need config.toml"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_a_sentence(options, words):
    """Helm says what is wrong before anything is installed."""
    done = template(any_helm(), "minimal", *options)
    assert 0 != done.returncode
    assert words in done.stderr


def test_a_canary_of_the_values_is_a_section_of_the_file():
    """Beside what `config.toml` says of its agent, and part of the checksum that restarts pods."""
    file = tomllib.loads(the(rendered("ha"), "ConfigMap", "shop-postroom")["data"]["postroom.toml"])
    assert {"to": "canary@sink.example", "every": "10min"} == file["agents"]["orders"]["canary"]
    assert "relay.example" == file["agents"]["orders"]["channels"][0]["host"]
    sums = {
        the(rendered("ha", *more), "Deployment", "shop-postroom-api")["spec"]["template"]["metadata"][
            "annotations"
        ]["checksum/config"]
        for more in ((), ("--set", "monitoring.canaries.orders.every=20min"))
    }
    assert 2 == len(sums)


@pytest.mark.parametrize(
    ("toml", "taken"),
    [
        ("[agents.orders]\n[agents.orders.canary]\nto = 'a@b.example'", True),
        ("  [ agents . 'orders'.\"canary\" ] # mine", True),
        ("[agents.orders]\n# comment\n\nrate = '1/s'\ncanary = {to = 'a@b.example'}", True),
        ("[agents.orders]\ncanary.to = 'a@b.example'", True),
        ("[agents.orders]\nlabels = {canary = 'no'}\n[agents.logins.canary]\nto = 'a@b.example'", False),
        ("[agents.orders]\n[agents.logins]\ncanary.to = 'a@b.example'\n# [agents.orders.canary]", False),
    ],
)
def test_a_canary_is_given_in_one_place(toml, taken, tmp_path):
    """A table that the file has already would make it no TOML: Helm says so, and only of that agent."""
    (tmp_path / "postroom.toml").write_text(f"[redis]\n{toml}\n")
    options = (
        "--set-file",
        f"config.toml={tmp_path / 'postroom.toml'}",
        "--set",
        "monitoring.canaries.orders.to=c@sink.example",
    )
    done = template(any_helm(), "minimal", *options)
    assert taken == ("monitoring.canaries.orders: config.toml has a canary of orders" in done.stderr), (
        done.stderr
    )
    assert (0 != done.returncode) is taken


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("http://collector.example:4318", 4318),
        ("https://collector.example", 443),
        ("http://c.example/otlp", 80),
    ],
)
def test_traces_go_through_the_network_policy(endpoint, port):
    """Both kinds of pods reach the collector's port, and only where traces are wanted."""
    for wanted in ("true", "false"):
        objects = rendered("minimal", "--set", f"tracing.enabled={wanted},tracing.endpoint={endpoint}")
        for component in ("api", "worker"):
            policy = the(objects, "NetworkPolicy", f"shop-postroom-{component}")
            # 443 is a port of channels as well, which only workers have.
            ports = [
                p["port"]
                for rule in policy["spec"]["egress"][:1] + policy["spec"]["egress"][-1:]
                for p in rule["ports"]
            ]
            assert (port in ports) == (wanted == "true" or (component, port) == ("worker", 443)), (
                component,
                ports,
            )


def test_the_longest_release_name_makes_names_that_fit():
    """Objects' names stay within 63 characters."""
    done = run(any_helm(), "template", "r" * 53, CHART, "--values", CHART / "ci" / "small-values.yaml")
    assert 0 == done.returncode, done.stderr
    names = re.findall(r"^  name: (\S+)$", done.stdout, re.MULTILINE)
    assert names
    assert [] == [name for name in names if len(name) > 63]


def test_the_configuration_of_the_examples_is_toml():
    """The values files that ship are whole examples."""
    for case in CASES:
        for o in rendered(case):
            if o["kind"] == "ConfigMap" and "postroom.toml" in o["data"]:
                tomllib.loads(o["data"]["postroom.toml"])
