"""The other design that offers itself: one arq job a message, with aiosmtplib.

`python -m bench.baselines.arq_worker`. Tuned fairly: uvloop, many jobs at a time, a short poll, msgpack instead of
pickle, no results kept, nothing logged, as many SMTP connections as Postroom has, kept.
"""

import asyncio
import os
from typing import Any

import aiosmtplib
import msgspec
import uvloop
from arq.connections import RedisSettings
from arq.worker import Worker, func

from bench.baselines.classic import compose

CONNECTIONS = 20
MAX_JOBS = 100
POLL_DELAY = 0.01


def redis_settings() -> RedisSettings:
    """Return where Redis is."""
    return RedisSettings(unix_socket_path=os.environ["BENCH_REDIS_SOCKET"])


async def send(ctx: dict[str, Any], message: dict[str, Any]) -> None:
    """Compose and send one message over one of the kept connections."""
    sender, recipients, mail = compose(message)
    smtp: aiosmtplib.SMTP = await ctx["connections"].get()
    try:
        if not smtp.is_connected:
            await smtp.connect()
        await smtp.sendmail(sender, recipients, mail)
    finally:
        ctx["connections"].put_nowait(smtp)


async def prepare(ctx: dict[str, Any]) -> None:
    """Make the pool of connections; each is opened when it is needed first."""
    port = int(os.environ["BENCH_SMTP_PORT"])
    ctx["connections"] = asyncio.LifoQueue()
    for _ in range(CONNECTIONS):
        smtp = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, use_tls=False, start_tls=False)
        ctx["connections"].put_nowait(smtp)


async def main() -> None:
    """Work until SIGTERM."""
    worker = Worker(
        [func(send, name="send")],
        redis_settings=redis_settings(),
        on_startup=prepare,
        max_jobs=MAX_JOBS,
        poll_delay=POLL_DELAY,
        keep_result=0,
        job_serializer=msgspec.msgpack.encode,
        job_deserializer=msgspec.msgpack.decode,
        handle_signals=False,
    )
    await worker.async_run()


if __name__ == "__main__":
    uvloop.run(main())
