"""Liveness means progress (`postroom.heart`)."""

import aiohttp
from prometheus_client import CollectorRegistry

from postroom.heart import Heart
from postroom.telemetry import Telemetry
from tests.stack import free_port


def test_a_loop_that_does_not_come_round_is_told():
    """From its first beat on a loop is expected to go on; one that was ended on purpose is not."""
    now = [0.0]
    heart = Heart(60, lambda: now[0])
    assert [] == heart.stalled()
    heart.beat("sweep")
    heart.beat("renew")
    now[0] = 59
    heart.beat("renew")
    now[0] = 61
    assert ["sweep"] == heart.stalled()
    heart.rest("sweep", "never-began")
    assert [] == heart.stalled()


async def test_livez_is_503_then():
    """`/livez` names what has stalled, and is 200 again once it goes on."""
    now = [0.0]
    heart = Heart(60, lambda: now[0])
    heart.beat("sweep")

    async def refresh():
        pass

    port = free_port()
    telemetry = Telemetry(
        CollectorRegistry(), address=("127.0.0.1", port), refresh=refresh, ready=lambda: True, heart=heart
    )
    async with telemetry, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def livez():
            async with session.get("/livez") as response:
                return response.status, await response.text()

        assert (200, "ok\n") == await livez()
        now[0] = 100
        assert (503, "stalled: sweep\n") == await livez()
        heart.beat("sweep")
        assert (200, "ok\n") == await livez()
