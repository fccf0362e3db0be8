"""What the tests of the chart share: the judges, and the chart as Helm renders it."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "postroom"
JUDGES = Path(os.environ.get("POSTROOM_JUDGES", ROOT / ".venv" / "judges"))
CASES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))


def judge(name):
    """Return a judge's program, or skip the test and say what is missing."""
    places = (JUDGES / name, Path(sys.executable).parent / name)
    found = next((str(place) for place in places if place.exists()), None) or shutil.which(name)
    if found is None:
        pytest.skip(
            f"{name} IS NOT HERE, so this is NOT checked: `make chart` fetches it where it can be had"
        )
    return found


def any_helm():
    """Return a Helm of whichever major is here."""
    for name in ("helm4", "helm3"):
        if (JUDGES / name).exists():
            return str(JUDGES / name)
    return judge("helm")


def run(*command, given=None, cwd=None):
    """Run a program; return it with its output."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True, text=True, timeout=120, input=given, cwd=cwd, check=False,
    )  # fmt: skip


def template(helm, case, *options):
    """Return Helm's run over one of the chart's own values files."""
    values = CHART / "ci" / f"{case}-values.yaml"
    return run(helm, "template", "shop", CHART, "--namespace", "mail", "--values", values, *options)


@cache
def rendered(case, *options, helm=None):
    """Return the objects a values file makes."""
    done = template(helm or any_helm(), case, *options)
    assert 0 == done.returncode, done.stderr[-2000:]
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def the(objects, kind, name=None):
    """Return the one object of a kind (and name)."""
    (found,) = [o for o in objects if o["kind"] == kind and (name is None or o["metadata"]["name"] == name)]
    return found


def pods(objects):
    """Yield name and pod template of everything that runs."""
    for o in objects:
        if o["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield o["metadata"]["name"], o["spec"]["template"]
        elif o["kind"] == "Pod":
            yield o["metadata"]["name"], o
