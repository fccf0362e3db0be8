"""An operator before an API of its own: requests to the port of the metrics, and the command line."""

import http.client
import json
import os
import tempfile
import urllib.request
import uuid
from contextlib import contextmanager
from pathlib import Path

from tests.nursery import NURSERY
from tests.service.conftest import ADMIN_TOKEN, Api
from tests.stack import sample

UNKNOWN = "orders-01ARZ3NDEKTSV4RRFFQ69G5FAV"
PAUSE, ACT = "/admin/agents/orders/pause", "/admin/messages/act"


@contextmanager
def lone_api():
    """Start an API that nobody shares, and end it."""
    with tempfile.TemporaryDirectory(prefix="pr") as folder:
        running = Api(Path(folder))
        process = running.start()
        try:
            yield running
        finally:
            process.terminate()
            process.wait(15)
            running.redis.kill()


def ask(api, method, path, body=None, *, authorization=f"Bearer {ADMIN_TOKEN}"):
    """Send one request to the metrics port; return status, document and header fields."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    if authorization is not None:
        headers["Authorization"] = authorization
    connection = http.client.HTTPConnection("127.0.0.1", api.metrics_port, timeout=15)
    connection.request(method, path, data, headers)
    response = connection.getresponse()
    raw = response.read()
    connection.close()
    return response.status, json.loads(raw), {k.lower(): v for k, v in response.getheaders()}


def accept(api, agent="orders", **changes):
    """Accept a message and return its id."""
    status, answer, _ = api.post(sample(f"admin-{uuid.uuid4().hex}", agent=agent, **changes))
    assert 202 == status
    return answer["id"]


def get(api, message_id):
    return api.post(b"", method="GET", path=f"/v1/messages/{message_id}")[1]


def events(api, event):
    lines = [json.loads(line) for line in api.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def act(api, verb, wanted, **more):
    """Do an act to its end, as the command line does; return its sums."""
    body = {"act": uuid.uuid4().hex, "verb": verb, "filter": wanted, "reason": "wrong price", **more}
    while True:
        status, answer, _ = ask(api, "POST", "/admin/messages/act", body)
        assert 200 == status, answer
        if answer["next"] is None:
            return answer["done"], answer["too_late"]
        body["at"] = answer["next"]


def run_cli(api, *words, token=ADMIN_TOKEN):
    """Run the command line against the API; return its exit status, output and error."""
    environ = {
        **os.environ,
        "POSTROOM_CONFIG": str(api.config),
        "POSTROOM_REDIS_URL": api.redis.url,
        "POSTROOM_ADMIN_URL": f"http://127.0.0.1:{api.metrics_port}",
        "POSTROOM_ADMIN_TOKEN": token,
    }
    return NURSERY.run("postroom", *words, environ=environ, seconds=50)


def finished(api, state):
    """Read how many messages of the agent have ended so."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{api.metrics_port}/metrics").read().decode()
    line = f'postroom_messages_finished_total{{agent="waiters",priority="normal",state="{state}"}}'
    return sum(float(row.split()[-1]) for row in text.splitlines() if row.startswith(line))
