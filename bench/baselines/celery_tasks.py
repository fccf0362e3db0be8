"""The do-it-yourself stack's worker: Celery on Redis, Jinja2, `EmailMessage`, smtplib.

    celery -A bench.baselines.celery_tasks worker --concurrency 2 …

Tuned fairly: prefork on both cores; tasks are taken by the dozen and acknowledged at once, results are not kept,
nothing is logged; each child keeps its SMTP connection. Without `acks_late` a child that is killed loses what it held;
Postroom does not allow itself that.
"""

import os
import smtplib
from typing import Any

from celery import Celery

from bench.baselines.classic import compose

app = Celery("bench", broker=os.environ["BENCH_BROKER"])
app.conf.update(
    task_ignore_result=True,
    task_acks_late=False,
    worker_prefetch_multiplier=32,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    task_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    worker_max_tasks_per_child=None,
)

_smtp: smtplib.SMTP | None = None


def connection() -> smtplib.SMTP:
    """Return this child's connection, made when it is needed first."""
    global _smtp  # noqa: PLW0603  one a process, as Celery's own documentation has it
    if _smtp is None:
        _smtp = smtplib.SMTP("127.0.0.1", int(os.environ["BENCH_SMTP_PORT"]))
        _smtp.ehlo_or_helo_if_needed()
    return _smtp


@app.task(name="send", autoretry_for=(OSError,), retry_backoff=True, max_retries=5)
def send(message: dict[str, Any]) -> None:
    """Compose and send one message; a connection that was lost is made again by the retry."""
    global _smtp  # noqa: PLW0603
    sender, recipients, mail = compose(message)
    try:
        connection().sendmail(sender, recipients, mail)
    except OSError:  # smtplib's own errors are some
        _smtp = None
        raise
