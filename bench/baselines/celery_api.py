"""The do-it-yourself stack's API: FastAPI, one Celery task a message. Runs under uvicorn with uvloop and httptools.

The task is published from the event loop itself: it takes a few hundred microseconds of processor, which a thread would
not take off but add to.
"""

from fastapi import Depends, FastAPI

from bench.baselines.celery_tasks import send
from bench.baselines.classic import Message, check_token

app = FastAPI(openapi_url=None)


@app.get("/readyz")
async def ready() -> dict[str, str]:
    """Say that it is up."""
    return {"status": "ok"}


@app.post("/v1/messages", status_code=202, dependencies=[Depends(check_token)])
async def accept(message: Message) -> dict[str, str]:
    """Queue a message."""
    task = send.apply_async((message.model_dump(),))
    return {"id": str(task.id), "state": "queued"}
