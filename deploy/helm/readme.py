"""Write the chart's README from its values: `python deploy/helm/readme.py`."""

import re
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "postroom"
KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):")

HEAD = """# The chart `postroom`

Two Deployments from one image: the API (`postroom serve`) and the workers (`postroom work`).
Kubernetes 1.25 or later; Helm 3 or 4.

```sh
kubectl create secret generic postroom-redis --from-literal=url='rediss://postroom:PASSWORD@redis.example:6379/0'
helm install postroom deploy/helm/postroom \\
  --set image.repository=registry.example.com/postroom \\
  --set-file config.toml=postroom.toml \\
  --set redis.external.existingSecret=postroom-redis
helm test postroom
```

* The configuration is [docs/configuration.md](../../../docs/configuration.md), running it all
  [docs/kubernetes.md](../../../docs/kubernetes.md) and [docs/operating.md](../../../docs/operating.md).
* Secrets are named, never given: `secrets.env`, `secrets.files`, `redis.external.existingSecret`.
  Files are taken over while it runs.
* To try it without a Redis of your own: `--set redis.enabled=true`.
* Liveness never asks Redis. Restarting a process does not bring Redis back, and callers get a clean 503 meanwhile.
* A worker is given 150 s to end, so an upgrade may take that long where mail servers are slow.
* What several values must fulfil together is refused with a sentence before anything is installed.

## Values

This table is made from the comments in `values.yaml`.

| Key | Default | Meaning |
|---|---|---|
"""


def options(text: str) -> list[tuple[str, str, str]]:
    """Return path, default and meaning of every key that has a `# -- ` comment above it.

    Raises:
        ValueError: a key without one, that has no keys below it either.
    """
    values = yaml.safe_load(text)
    rows: list[tuple[str, str, str]] = []
    path: list[tuple[int, str]] = []
    words: list[str] = []
    told_at: int | None = None  # the indent of a key that was told as a whole
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("# -- "):
            words = [bare[5:]]
        elif bare.startswith("# ") and words:
            words.append(bare[2:])
        elif match := KEY.match(line):
            indent = len(match[1])
            if told_at is not None and indent > told_at:
                continue
            path = [*(step for step in path if step[0] < indent), (indent, match[2])]
            key = ".".join(name for _, name in path)
            told_at = indent if words else None
            if words:
                rows.append((key, _shown(_at(values, key)), " ".join(words)))
            elif not isinstance(_at(values, key), dict):
                raise ValueError(f"values.yaml: {key} has no comment")
            words = []
    return rows


def _at(values: Any, key: str) -> Any:
    for step in key.split("."):
        values = values[step]
    return values


def _shown(value: Any) -> str:
    if value in ("", [], {}):
        return ""
    flow = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("...").strip()
    return f"`{flow}`"


def readme() -> str:
    """Return the README's text."""
    rows = options((CHART / "values.yaml").read_text())
    return HEAD + "".join(f"| `{key}` | {default} | {text} |\n" for key, default, text in rows)


if __name__ == "__main__":
    (CHART / "README.md").write_text(readme())
