"""Templates over the API: who may publish, what is refused and how it is told, and what is shown."""

import os

import pytest

from tests.nursery import NURSERY
from tests.stack import OTHER_TOKEN, TOKEN, sample

WRITER = "pr_test_writer"
MANIFEST = (
    'description = "Says hello."\nowner = "team-a"\n[variables.name]\ntype = "string"\nexample = "Ada"\n'
)
FILES = {"template.toml": MANIFEST, "subject.txt": "Hi {{ name }}", "body.txt": "Hello"}


def put(api, body, name="greeting", token=WRITER):
    return api.post(body, method="PUT", path=f"/v1/templates/{name}", authorization=f"Bearer {token}")


def get(api, path, token=TOKEN):
    return api.post(b"", method="GET", path=f"/v1/templates{path}", authorization=f"Bearer {token}")


def test_a_template_is_published_shown_and_sent(api):
    """Publishing answers the version; lists, details, versions and files show it, and a message is accepted with it."""
    status, published, _ = put(api, {"files": FILES})
    assert (200, "writer", 12) == (status, published["published_by"], len(published["version"]))

    listed = {t["name"]: t for t in get(api, "")[1]["templates"]}
    assert {"greeting", "login_code", "order_shipped", "password_reset", "welcome"} <= listed.keys()
    assert (None, published["version"]) == (listed["welcome"]["published_at"], listed["greeting"]["version"])

    shown = get(api, "/greeting")[1]
    assert {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 255, "examples": ["Ada"]}},
        "additionalProperties": False,
        "required": ["name"],
    } == shown["variables"]
    assert "logins" == get(api, "/greeting", OTHER_TOKEN)[1]["example"]["agent"]
    status, accepted, _ = api.post({**shown["example"], "client_ref": "greeting-once"})
    assert (202, published["version"]) == (status, accepted["template"]["version"])

    status, changed, _ = put(api, {"files": {**FILES, "body.txt": "Hello again"}})
    versions = get(api, "/greeting/versions")[1]["versions"]
    assert [(changed["version"], True), (published["version"], False)] == [
        (v["version"], v["current"]) for v in versions
    ]
    old = get(api, f"/greeting/versions/{published['version']}")[1]
    assert FILES == old["files"]

    status, back, _ = put(api, {"version": published["version"]})
    assert (200, published["version"]) == (status, back["version"])


def test_a_repeated_call_is_answered_whatever_the_template_says_now(api):
    """What was accepted under a ref stays accepted when the template becomes stricter; other content is a conflict."""
    put(api, {"files": FILES}, name="strict")
    body = sample("strict-1", template={"name": "strict", "variables": {"name": "Ada"}})
    first = api.post(body)
    more = '[variables.city]\ntype = "string"\nexample = "London"\n'
    put(api, {"files": {**FILES, "template.toml": MANIFEST + more}}, name="strict")

    again, dry = api.post(body), api.post(body, path="/v1/messages?dry_run=true")
    assert (202, 200, first[1]["id"]) == (first[0], again[0], again[1]["id"])
    assert ("true", first[1]["template"]) == (
        again[1]["headers"]["idempotent-replayed"],
        again[1]["template"],
    )
    assert (422, "invalid_variables") == _refusal(dry)

    other = api.post({**body, "to": [{"address": "grace@example.com"}]})
    assert (409, ["/to"]) == (other[0], [fault["pointer"] for fault in other[1]["errors"]])
    assert (422, "invalid_variables") == _refusal(api.post({**body, "client_ref": "strict-2"}))
    assert (422, "invalid_request") == _refusal(api.post({**body, "to": [{"address": 1}]}))


def test_a_faulty_template_is_refused_with_every_fault(api):
    """Each fault is named by file and line, and nothing is published."""
    wrong = {
        "template.toml": MANIFEST + "colour = 3\n",
        "subject.txt": "x",
        "body.html": "\n<a href={{ name | url }}>",
        "x.md": "y",
    }
    status, problem, _ = put(api, {"files": wrong}, name="faulty")
    assert (422, "invalid_template") == (status, problem["code"])
    found = {(e["pointer"], e["detail"][:30]) for e in problem["errors"]}
    assert {
        ("/files/template.toml", "line 6: /variables/name/colour"),
        ("/files/body.html", "line 2: a value in an attribute"),
        ("/files/x.md", "line 1: unknown file: a templ"),
    } == {(pointer, detail) for pointer, detail in found} or found
    assert {"/files/template.toml", "/files/body.html", "/files/x.md"} == {pointer for pointer, _ in found}
    assert 404 == get(api, "/faulty")[0]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "malformed_json"),
        ({}, "invalid_request"),
        ({"files": FILES, "version": "0" * 12}, "invalid_request"),
        ({"files": {}}, "invalid_request"),
        ({"files": {"subject.txt": 3}}, "invalid_request"),
        ({"version": "latest"}, "invalid_request"),
        ({"version": "0" * 12}, "unknown_template"),
        ({"files": FILES, "note": "x"}, "invalid_request"),
        ({"files": {**FILES, "body.txt": "x" * 2_100_000}}, "invalid_template"),
        ({"files": {**FILES, "body.txt": "{{ '%0999999999d' | format(1) }}"}}, "invalid_template"),
    ],
)
def test_bad_publications(api, body, code):
    """What is no publication is refused as a problem."""
    status, problem, _ = put(api, body, name="bad")
    assert (code, True) == (problem["code"], status in (400, 422))


def test_publishing_asks_for_its_scope_and_agents(api):
    """A token to send publishes nothing, nor does a caller without the agents of a template, old or new."""
    assert (403, "scope_missing") == _refusal(put(api, {"files": FILES}, token=TOKEN))
    foreign = {**FILES, "template.toml": 'agents = ["logins"]\n' + MANIFEST}
    assert (403, "agent_not_allowed") == _refusal(put(api, {"files": foreign}, name="foreign"))
    assert (405, "method_not_allowed") == _refusal(
        api.post(b"", method="DELETE", path="/v1/templates/welcome", authorization=f"Bearer {WRITER}")
    )
    assert 404 == get(api, "/nobody")[0]
    assert 404 == get(api, "/welcome/versions/000000000000")[0]


def _refusal(answer):
    return answer[0], answer[1]["code"]


def test_the_contract_has_the_variables(api):
    """/openapi.json types the variables of each template, the published ones too."""
    put(api, {"files": FILES}, name="typed")
    document = api.post(b"", method="GET", path="/openapi.json", authorization=None)[1]
    schemas = document["components"]["schemas"]
    assert "name" in schemas["TypedVariables"]["properties"]
    assert {"first_name", "order_number", "tracking_url"} <= set(schemas["OrderShippedVariables"]["required"])


def templates_command(*words, token=WRITER):
    environ = {**os.environ, "POSTROOM_TOKEN": token}
    return NURSERY.run("postroom", "templates", *map(str, words), environ=environ)


@pytest.mark.timeout(150)
def test_the_owners_commands(api, tmp_path):
    """`check` tells file and line and fails; `push` publishes what is not current, once; `diff` tells what that would be."""
    folder = tmp_path / "pushed"
    folder.mkdir()
    (tmp_path / "_shared").mkdir()
    (tmp_path / "_shared" / "foot.txt").write_text("\n{{ nobody }}")
    for name, text in {**FILES, "body.txt": 'Hello {% include "_shared/foot.txt" %}'}.items():
        (folder / name).write_text(text)
    url = f"http://127.0.0.1:{api.port}"

    status, _, said = templates_command("check", tmp_path)
    assert (1, True) == (status, said.startswith(f"{tmp_path}/_shared/foot.txt:2: 'nobody' is not among"))
    assert 1 == templates_command("push", tmp_path, url)[0]
    assert 404 == get(api, "/pushed")[0]

    (tmp_path / "_shared" / "foot.txt").write_text("bye")
    assert "would take the place of nothing" in templates_command("push", tmp_path, url, "--dry-run")[1]
    status, said, _ = templates_command("push", tmp_path, url, "pushed")
    version = get(api, "/pushed")[1]["version"]
    assert (0, f"pushed {version} is current now\n") == (status, said)
    assert (0, f"pushed {version} is current already\n") == templates_command("push", tmp_path, url)[:2]

    assert (0, "no template differs\n") == templates_command("diff", url, tmp_path, "pushed", token=TOKEN)[:2]

    (folder / "body.txt").write_text("changed")
    status, said, _ = templates_command("diff", url, tmp_path, "pushed", token=TOKEN)
    assert (1, "1 of 1 templates differ") == (status, said.splitlines()[-1])
    assert ["-Hello bye", "+changed"] == [line.strip() for line in said.splitlines() if line.startswith("      ") and line.strip()[0] in "-+"]  # fmt: skip
    assert 2 == templates_command("diff", url, tmp_path, token="nobody")[0]
    status, _, said = templates_command("push", tmp_path, url, token=TOKEN)
    assert (1, True) == (status, "scope_missing" in said)
