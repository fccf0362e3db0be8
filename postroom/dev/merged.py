"""The metrics of API and worker on one port, told apart by the label `process`, and the API's admin routes."""

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from postroom.dev.ports import HOST
from postroom.port_log import PortLog


class _Shown(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


async def serve_merged(port: int, sources: dict[str, int]) -> web.AppRunner:
    """Serve /metrics on `port`, read from the metrics ports of the named processes at each scrape.

    What is under /admin is passed on to the process called `api`.
    """

    async def metrics(_: web.Request) -> web.Response:
        texts = {name: await _read(source) for name, source in sources.items()}
        return web.Response(body=merge(texts), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def admin(request: web.Request) -> web.Response:
        return await _pass_on(request, sources["api"])

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_route("*", "/admin/{rest:.*}", admin)
    runner = web.AppRunner(app, access_log=None, logger=PortLog())
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    return runner


def merge(texts: dict[str, str]) -> bytes:
    """Merge expositions into one with each family once."""
    families: dict[str, Metric] = {}
    for process, text in texts.items():
        for family in text_string_to_metric_families(text):
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                merged.add_sample(sample.name, {**sample.labels, "process": process}, sample.value)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Shown(list(families.values())))
    return generate_latest(registry)


async def _pass_on(request: web.Request, port: int) -> web.Response:
    """Pass a request on and return the answer; 503 while the API is being started again."""
    passed = ("Authorization", "Content-Type", "X-Request-Id")
    headers = {name: request.headers[name] for name in passed if name in request.headers}
    url = f"http://{HOST}:{port}{request.raw_path}"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session,
            session.request(request.method, url, data=await request.read(), headers=headers) as response,
        ):
            body, kind = await response.read(), response.content_type
            return web.Response(body=body, status=response.status, content_type=kind)
    except (aiohttp.ClientError, TimeoutError):
        return web.Response(text="the API does not answer\n", status=503)


async def _read(port: int) -> str:
    """Return one process's exposition; of one that is being started again there is nothing to show."""
    timeout = aiohttp.ClientTimeout(total=3)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{HOST}:{port}/metrics") as response,
        ):
            return await response.text()
    except (aiohttp.ClientError, TimeoutError):
        return ""
