"""The API in front of `arq_worker`: FastAPI, one job a message. Runs under uvicorn with uvloop and httptools."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from arq.connections import create_pool
from fastapi import Depends, FastAPI, HTTPException, Request

from bench.baselines.arq_worker import redis_settings
from bench.baselines.classic import Message, check_token


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have a pool of connections to Redis."""
    app.state.pool = await create_pool(redis_settings(), job_serializer=msgspec.msgpack.encode)
    yield
    await app.state.pool.aclose()


app = FastAPI(openapi_url=None, lifespan=lifespan)


@app.get("/readyz")
async def ready() -> dict[str, str]:
    """Say that it is up."""
    return {"status": "ok"}


@app.post("/v1/messages", status_code=202, dependencies=[Depends(check_token)])
async def accept(message: Message, request: Request) -> dict[str, str]:
    """Queue a message."""
    job = await request.app.state.pool.enqueue_job("send", message.model_dump())
    if job is None:
        raise HTTPException(503)
    return {"id": job.job_id, "state": "queued"}
