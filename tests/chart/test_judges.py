"""What independent judges say about the chart: Helm of two majors, schemas of three Kubernetes versions, and others."""

import json
import re

import pytest
import yaml

from tests.chart.conftest import CASES, CHART, ROOT, judge, pods, rendered, run, template

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate",
    reason="THE JUDGES ARE NOT HERE, so the chart is NOT judged: `make chart` fetches them",
)

VERSIONS = ("1.25", "1.31", "1.35")
CUSTOM = {
    "ServiceMonitor": "prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor",
    "PrometheusRule": "prometheus-operator/monitoring.coreos.com/v1/PrometheusRule",
    "ScaledObject": "keda/keda.sh/v1alpha1/ScaledObject",
    "ExternalSecret": "external-secrets/external-secrets.io/v1/ExternalSecret",
    "HTTPRoute": "gateway-api/gateway.networking.k8s.io/v1/HTTPRoute",
}
# Each with its reason. Everything else that checkov finds fails the test.
SKIPPED = {
    "CKV_K8S_11": "no CPU limit: throttling turns short peaks into slow answers and lost leases",
    "CKV_K8S_15": "IfNotPresent: the image is pinned by tag or digest, and a registry outage must not stop a restart",
    "CKV_K8S_35": "credentials of channels may be variables; files, which can be rotated, are the other way",
    "CKV_K8S_43": "a digest is the installer's to give (image.digest): the chart cannot know it",
    "CKV_DOCKER_2": "no HEALTHCHECK: Kubernetes asks /livez and /readyz itself, and both commands have another port",
}
OF_HOOKS = {
    "CKV_K8S_8": "a hook's pod runs once and ends",
    "CKV_K8S_9": "the same",
    "CKV2_K8S_6": "a hook's pod takes no connections, and may run before there are policies",
}
MODELS = """
import fs from 'node:fs';
const wanted = JSON.parse(fs.readFileSync(0));
for (const [path, object] of wanted) {
  const module = await import('@kubernetes-models/' + path);
  new module[path.split('/').pop()](object).validate();
}
console.log('judged', wanted.length);
"""


@pytest.mark.parametrize("major", ["helm3", "helm4"])
def test_helm_lints_strictly(major):
    """`helm lint --strict` has nothing to say, for any of the values files."""
    for case in CASES:
        done = run(judge(major), "lint", "--strict", CHART, "--values", CHART / "ci" / f"{case}-values.yaml")
        assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_both_majors_of_helm_render_the_same(case, version):
    """Helm 3 and Helm 4 give the same text."""
    told = [template(judge(major), case, "--kube-version", version) for major in ("helm3", "helm4")]
    assert [0, 0] == [done.returncode for done in told], [done.stderr for done in told]
    assert told[0].stdout == told[1].stdout


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_every_object_is_right_by_the_schemas_of_kubernetes(case, version):
    """Strictly: a field that Kubernetes does not know is a fault."""
    judged = 0
    for o in rendered(case, "--kube-version", version):
        if o["kind"] not in CUSTOM:
            kubernetes_validate.validate(o, version, strict=True)
            judged += 1
    assert judged >= 5


@pytest.mark.parametrize("case", CASES)
def test_custom_resources_are_right_by_the_models_of_their_makers(case):
    """What belongs to the Prometheus operator, KEDA, External Secrets and the Gateway API."""
    folder = judge("models")
    wanted = [(CUSTOM[o["kind"]], o) for o in rendered(case) if o["kind"] in CUSTOM]
    done = run("node", "--input-type=module", "--eval", MODELS, given=json.dumps(wanted), cwd=folder)
    assert f"judged {len(wanted)}" in done.stdout, done.stderr[-1500:]


def findings(*options):
    """Return what checkov finds, but for what is argued with above."""
    skipped = ",".join(SKIPPED)
    told = ("--compact", "--quiet", "--skip-download", "-o", "json", "--skip-check", skipped)
    reports = json.loads(run(judge("checkov/bin/checkov"), *options, *told).stdout)
    failed = [
        (check["check_id"], check["check_name"], check["resource"])
        for report in (reports if isinstance(reports, list) else [reports])
        for check in report.get("results", {}).get("failed_checks", [])
    ]
    return [f for f in failed if f[0] not in OF_HOOKS or not re.search(r"-(test|check)\b", f[2])]


def test_checkov_finds_nothing_that_is_not_argued_with(tmp_path):
    """Its findings on the objects of all values files are none but the argued ones."""
    for case in CASES:
        (tmp_path / f"{case}.yaml").write_text(yaml.safe_dump_all(rendered(case)))
    assert [] == findings("-d", tmp_path, "--framework", "kubernetes")


def test_checkov_finds_nothing_in_the_dockerfile():
    """The same for the image."""
    assert [] == findings("-f", ROOT / "Dockerfile", "--framework", "dockerfile")


def test_the_dockerfile_is_clean_for_hadolint():
    """No finding at all."""
    done = run(judge("hadolint"), ROOT / "Dockerfile")
    assert 0 == done.returncode, done.stdout


def test_pods_are_in_every_case():
    """A guard: what is judged above is not empty."""
    for case in CASES:
        assert len(dict(pods(rendered(case)))) >= 3
