"""An operator at a desk: a caller with the scope `admin`, and the command line in that caller's hands."""

import asyncio
import hashlib
import os

from tests.nursery import NURSERY
from tests.stack import Stack

ADMIN = "pr_test_admin"
OPERATOR = f"""\
[callers.operator]
tokens = [{{ id = "t9", sha256 = "{hashlib.sha256(ADMIN.encode()).hexdigest()}", scopes = ["admin"] }}]
"""


async def postroom(stack: Stack, *words: str, status: int = 0) -> str:
    """Run the command line as an operator at his desk; return what it printed."""
    environ = {
        **os.environ,
        "POSTROOM_CONFIG": str(stack.config),
        "POSTROOM_REDIS_URL": stack.redis_url or stack.redis.url,
        "POSTROOM_ADMIN_URL": f"http://127.0.0.1:{stack.metrics_port}",
        "POSTROOM_ADMIN_TOKEN": ADMIN,
    }
    ran = await asyncio.to_thread(NURSERY.run, "postroom", *words, environ=environ)
    assert status == ran.code, ran
    return ran.out + ran.err
