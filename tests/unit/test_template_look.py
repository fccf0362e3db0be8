"""`postroom templates preview` and `diff`: what a template's owner looks at before a change is merged."""

import http.client
import json
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from postroom.preview.compare import compare
from postroom.preview.sheet import POLICY, make_sheet
from postroom.templates import Template
from tests.stack import ROOT

COMMAND = [sys.executable, "-m", "postroom", "templates"]
SHIPPED = ["login_code", "order_shipped", "password_reset", "welcome"]


@pytest.fixture
def folder(tmp_path):
    """A copy of the templates that ship, to be changed."""
    return shutil.copytree(ROOT / "templates", tmp_path / "templates")


@contextmanager
def preview(folder):
    """Run the command; give a function that asks its page. It must end well by Ctrl-C."""
    command = [*COMMAND, "preview", str(folder), "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().rsplit(" ", 1)[1].strip()
        assert url.startswith("http://127.0.0.1:")
        address = url.removeprefix("http://").rstrip("/")

        def ask(path, host=address):
            connection = http.client.HTTPConnection(address, timeout=30)
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            body = answer.read().decode()
            connection.close()
            return answer.status, dict(answer.headers), body

        yield ask
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert (0, "") == (process.returncode, errors)


def test_the_page_shows_everything_and_follows_what_is_saved(folder):
    """Every template in every locale on both examples; a saved change, a fault and a new template are there at once."""
    with preview(folder) as ask:
        found = json.loads(ask("/api/templates")[2])
        assert SHIPPED == [template["name"] for template in found["templates"]]
        places = {(t["name"], s["locale"], s["example"]) for t in found["templates"] for s in t["showings"]}
        for name in SHIPPED:
            assert {("en", "every variable"), ("de", "every variable")} <= {
                p[1:] for p in places if p[0] == name
            }
        assert ("order_shipped", "de", "required variables only") in places

        status, headers, html = ask("/mail/welcome/0?v=1")
        assert (200, True, False) == (
            status,
            "<!doctype" in html.lower(),
            "script-src" in headers["Content-Security-Policy"],
        )
        assert "sandbox" in headers["Content-Security-Policy"]
        assert [200, 404, 404] == [ask(path)[0] for path in ("/", "/static/x", "/mail/welcome/99")]
        assert 403 == ask("/", "evil.example")[0]

        (folder / "welcome" / "subject.txt").write_text("Ahoy, {{ first_name }}")
        seen = json.loads(ask(f"/api/templates?seen={found['turn']}")[2])
        assert found["turn"] < seen["turn"]
        assert "Ahoy, Ada" == seen["templates"][3]["showings"][0]["subject"]
        (folder / "welcome" / "subject.txt").write_text("\n{{ nobody }}")
        wrong = json.loads(ask(f"/api/templates?seen={seen['turn']}")[2])["templates"][3]
        assert [("subject.txt", 2)] == [(fault["file"], fault["line"]) for fault in wrong["faults"]]
        assert "Ahoy, Ada" == wrong["showings"][0]["subject"]


def diff(*words):
    done = subprocess.run([*COMMAND, "diff", *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_diff_tells_what_a_reader_would_see(folder, tmp_path):
    """0 where nothing differs, 1 with the lines and the page where something does."""
    assert (0, "no template differs\n", "") == diff("templates", folder)

    text = (folder / "login_code" / "body.de.mjml").read_text()
    (folder / "login_code" / "body.de.mjml").write_text(text.replace("Hallo", "Servus"))
    manifest = folder / "welcome" / "template.toml"
    manifest.write_text(manifest.read_text().replace('description = "', 'description = "Also: '))
    shutil.rmtree(folder / "order_shipped")
    page = tmp_path / "diff.html"
    status, said, _ = diff("templates", folder, "--html", page)
    assert 1 == status
    lines = said.splitlines()
    assert "  de, every variable" in lines
    assert "  en, every variable" not in lines
    assert any(line.strip().startswith("+") and "Servus" in line for line in lines)
    assert "  on the examples nothing changes" in lines
    assert any(line.startswith("order_shipped ") and line.endswith(" -> nothing") for line in lines)
    assert "3 of 4 templates differ" == lines[-1]
    shown = page.read_text()
    assert ("Servus" in shown, "Hallo" in shown, "<script>" in shown) == (True, True, True)

    assert (0, "no template differs\n", "") == diff("templates", folder, "password_reset")


def test_diff_says_what_it_cannot_compare(folder, tmp_path):
    """A template that is broken or not there, no folder, and nobody who answers: status 2, and why."""
    (folder / "welcome" / "subject.txt").write_text("{{ nobody }}")
    for words in (("templates", folder), ("templates", tmp_path / "none"), ("templates", folder, "nobody"), ("http://127.0.0.1:1", folder, "--token", "x")):  # fmt: skip
        status, _, said = diff(*words)
        assert (2, True) == (status, bool(said)), words


def test_the_page_runs_nothing_of_a_template():
    """Whatever a template or the name of a place holds is text or lies in a frame without scripts."""
    files = {
        "template.toml": 'description = "x"\n[variables.a]\ntype = "string"\nexample = "</iframe><script>alert(1)</script>"\n',
        "subject.txt": "{{ a }}",
        "body.html": "<p>{{ a }}</p>",
    }
    new = {**files, "body.html": '<p>"{{ a }}</p>'}
    sheet = make_sheet([compare("t", Template("t", files), Template("t", new))], "<script>old", "new")
    assert 1 == sheet.count("<script>")
    assert 1 == sheet.count("</script>")
    assert 4 == sheet.count("<iframe") == sheet.count('sandbox="allow-same-origin"')
    assert "sha256-" in POLICY
