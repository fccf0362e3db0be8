"""The development run, from the first check to Ctrl-C."""

import asyncio
import importlib.util
import os
import signal
import sys
from pathlib import Path

from aiohttp import web

from postroom.dev.banner import banner
from postroom.dev.children import Child, Supervisor
from postroom.dev.embedded import find_redis
from postroom.dev.files import ZEPTO_TOKEN, hold_folder, keep_token, write_config
from postroom.dev.merged import serve_merged
from postroom.dev.ports import HOST, Ports, check_ports, free_port
from postroom.dev.sample import send_sample, wait_until_ready
from postroom.errors import PostroomError
from postroom.ledger.clients import reading_client
from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.watch import Watch
from postroom.startup import report

REDIS_SECONDS = 30.0  # an append-only file of many messages takes a while to read
OLDEST_PYTHON = (3, 11)


def run_dev(port: int, data: Path, config: Path | None) -> int:
    """Run everything until Ctrl-C; 1 where something does not start, with what to do about it."""
    if sys.version_info < OLDEST_PYTHON:
        raise PostroomError("Python 3.11 or newer is needed")
    if importlib.util.find_spec("aiosmtpd") is None:
        raise PostroomError("the inbox needs the extra `dev`: pip install 'postroom[dev]'")
    ports = Ports(port)
    check_ports(ports)
    data.mkdir(parents=True, exist_ok=True)
    with hold_folder(data):
        return asyncio.run(_Run(ports, data, config).run())


class _Run:
    def __init__(self, ports: Ports, data: Path, config: Path | None) -> None:
        self._ports = ports
        self._data = data
        self._own_config = config
        self._supervisor = Supervisor(_tell)
        self._stop = asyncio.Event()
        self._metrics = {"api": free_port(), "worker": free_port()}
        self._redis = ""

    async def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(self._stop.wait())
        merged: web.AppRunner | None = None
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                merged = await starting
                await stopping
        except PostroomError as error:
            report(error)
            return 1
        else:
            return 0
        finally:
            starting.cancel()
            stopping.cancel()
            await self._stop_all(merged)

    async def _start(self) -> web.AppRunner:
        token, admin_token = keep_token(self._data), keep_token(self._data, "admin-token")
        redis_url = await self._start_redis()
        double = None if self._own_config else self._start_zeptomail()
        config = self._own_config or write_config(
            self._data, _find_templates(), (token, admin_token), self._ports, redis_url, double
        )
        self._start_children(config, redis_url)
        api, inbox = f"http://{HOST}:{self._ports.api}", f"http://{HOST}:{self._ports.inbox}"
        await wait_until_ready(
            {
                "the inbox": f"{inbox}/livez",
                "the API": f"{api}/readyz",
                "the worker": f"http://{HOST}:{self._metrics['worker']}/readyz",
            }
        )
        merged = await serve_merged(self._ports.metrics, self._metrics)
        if self._own_config is None:
            sample = await send_sample(api, inbox, token)
            print(banner(self._ports, sample, self._redis, str(self._data)), flush=True)
        else:
            print(
                f"\nPostroom is running with {config}: API {api}, inbox {inbox}. Ctrl-C stops it.", flush=True
            )
        return merged

    async def _start_redis(self) -> str:
        url = os.environ.get("POSTROOM_REDIS_URL")
        if url:
            self._redis = "POSTROOM_REDIS_URL"
        else:
            found = find_redis(self._data)
            url, self._redis = found.url, found.origin
            self._supervisor.keep(Child("redis", found.command, {}, self._log("redis")))
        client = reading_client(url)
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                while not await _answers(Watch(client)):  # noqa: ASYNC110  another process: nothing to await
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise PostroomError(f"Redis does not answer ({self._redis}): see {self._log('redis')}") from None
        finally:
            await client.aclose()
        return url

    def _start_zeptomail(self) -> str | None:
        """Start the double of ZeptoMail's API that a checkout has among its tests; an installed package has none."""
        program = Path(__file__).parents[2] / "tests" / "fakezepto.py"
        if not program.is_file():
            return None
        keep_token(self._data, ZEPTO_TOKEN)
        port = free_port()
        command = [
            *(sys.executable, "-P", str(program), "--host", HOST, "--port", str(port)),
            *("--token-file", str(self._data / ZEPTO_TOKEN), "--inbox", f"{HOST}:{self._ports.smtp}"),
        ]
        self._supervisor.keep(Child("zeptomail", command, {}, self._log("zeptomail")))
        return f"http://{HOST}:{port}"

    def _start_children(self, config: Path, redis_url: str) -> None:
        environ = {
            "POSTROOM_CONFIG": str(config),
            "POSTROOM_REDIS_URL": redis_url,
            "POSTROOM_HOST": HOST,
            "POSTROOM_PORT": str(self._ports.api),
            "POSTROOM_LOG_FORMAT": "json",
        }
        python = [sys.executable, "-P", "-m"]
        inbox = [
            *("postroom.inbox", "--host", HOST, "--http-port", str(self._ports.inbox)),
            *("--smtp-port", str(self._ports.smtp), "--data", str(self._data / "inbox.sqlite")),
            *("--redis-url", redis_url, "--api-url", f"http://{HOST}:{self._ports.api}"),
        ]
        commands = {"inbox": inbox, "api": ["service"], "worker": ["workers"]}
        for name, command in commands.items():
            own = {"POSTROOM_METRICS_PORT": str(self._metrics[name])} if name in self._metrics else {}
            child = Child(name, [*python, *command], {**environ, **own}, self._log(name))
            self._supervisor.keep(child)

    async def _stop_all(self, merged: web.AppRunner | None) -> None:
        if merged is not None:
            await merged.cleanup()
        print("\nStopping …", flush=True)
        # Redis last: the worker writes its last outcomes, and the inbox takes the mail in hand.
        await self._supervisor.stop("api", "worker")
        await self._supervisor.stop("zeptomail", "inbox")
        await self._supervisor.stop("redis")

    def _log(self, name: str) -> Path:
        return self._data / "logs" / f"{name}.log"


async def _answers(watch: Watch) -> bool:
    try:
        await watch.fitness()
    except LedgerUnavailableError:
        return False
    return True


def _find_templates() -> Path:
    """Return the folder of templates: of the current folder, or of the checkout this package lies in."""
    for folder in (Path("templates"), Path(__file__).parents[2] / "templates"):
        if folder.is_dir():
            return folder
    raise PostroomError("there is no folder templates/ here: run it from a checkout, or give --config")


def _tell(text: str) -> None:
    print(f"postroom: {text}", flush=True)
