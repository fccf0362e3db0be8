"""Child processes: started, logged to files, started again when they die, stopped in order."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

RESTART_SECONDS = (0.2, 1.0, 2.0, 5.0)
STOP_SECONDS = 15.0
STEADY_SECONDS = 30.0  # a child that ran so long starts again without a pause
PR_SET_PDEATHSIG = 1


class Child(Struct, frozen=True):
    """A process to keep running."""

    name: str
    command: list[str]
    environ: dict[str, str]
    log: Path


class Supervisor:
    """Keeps children running until told to stop; tells of each one that ended by itself."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._stopping: bool = False

    def keep(self, child: Child) -> None:
        """Start a child and keep it running."""
        self._tasks[child.name] = asyncio.create_task(self._keep(child))

    async def stop(self, *names: str) -> None:
        """Stop children together with SIGTERM, and with SIGKILL those that do not go."""
        self._stopping = True
        await asyncio.gather(*(self._stop(name) for name in names if name in self._tasks))

    async def _stop(self, name: str) -> None:
        process = self._processes.get(name)
        task = self._tasks.pop(name)
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                self._tell(f"{name} did not stop within {STOP_SECONDS:.0f} s and is killed")
                process.kill()
                await process.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _keep(self, child: Child) -> None:
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            began = loop.time()
            process = self._processes[child.name] = await start(child)
            code = await process.wait()
            if self._stopping:
                return
            failures = 0 if loop.time() - began > STEADY_SECONDS else failures + 1
            pause = RESTART_SECONDS[min(max(failures - 1, 0), len(RESTART_SECONDS) - 1)]
            self._tell(
                f"{child.name} ended with {_describe(code)}; started again in {pause:g} s (see {child.log})"
            )
            await asyncio.sleep(pause)


async def start(child: Child) -> asyncio.subprocess.Process:
    """Start a child with its output in its log file."""
    child.log.parent.mkdir(parents=True, exist_ok=True)
    with child.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *child.command,
            env={**os.environ, **child.environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Its own session: Ctrl-C reaches only us, and we stop the children in order.
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )


def _end_with_parent() -> None:
    """Ask the kernel to end this child when its parent dies, even by SIGKILL, so that no port stays taken."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _describe(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"
