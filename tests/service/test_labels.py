"""Labels of agents as filters of the command line."""

import subprocess

import pytest

from tests.service.conftest import ADMIN_TOKEN, Api
from tests.stack import sample


def test_a_label_chooses_agents(api: Api):
    """Only agents with all the labels that are given are shown, whether Redis is looked into or the port asked."""
    for agent in ("orders", "alerts"):
        api.post(sample(f"label-{agent}", agent=agent))
    port = ["--admin-url", f"http://127.0.0.1:{api.metrics_port}", "--token", ADMIN_TOKEN]

    def shown(*words: str) -> set[str]:
        lines = api.command(*words)
        return {"orders", "alerts"} & {line.split(" ")[0] for line in lines.splitlines()}

    assert {"alerts"} == shown("queue", "--label", "business=shop", "--label", "kind=alerts")
    assert {"alerts"} == shown("queue", "--label", "business=shop", *port)
    assert {"orders", "alerts"} == shown("agents", *port)
    assert set() == shown("agents", "--label", "business=shop", "--label", "kind=receipts", *port)


def test_a_label_has_a_name_and_a_value(api: Api):
    """Anything else is said to be wrong."""
    with pytest.raises(subprocess.CalledProcessError) as failed:
        api.command("queue", "--label", "shop")
    assert "--label must be NAME=VALUE" in failed.value.stderr
