"""A real SMTP server that misbehaves as its script says, and counts what it accepted.

A script maps a point of the conversation to what happens there: CONNECT, EHLO, HELO, STARTTLS, AUTH,
`AUTH:<password>` (AUTH PLAIN), MAIL, RCPT, `RCPT:<address>`, DATA, BODY (first line after 354), DOT, RSET,
NOOP, QUIT. What happens is one action, or a list of them for the first, second, … time (the last one stays):

    "ok"               the usual reply
    "451 4.3.0 text"   this reply ("\\n" parts its lines)
    "slow 0.2"         the usual reply, that much later
    "held"             the usual reply, once the test calls `release`
    "raw bytes"        exactly these (latin-1)
    "drop"             end the connection
    "bye 421 text"     this reply, then the end of the connection
    "reset"            end it with a TCP reset
    "hang"             say nothing more, throw away what comes
    "freeze"           say nothing more, read nothing more
    "accept ACTION"    at DOT only: take responsibility for the mail, then act
    "discard"          the usual reply, after throwing away whatever has come behind the command

The mail is also accepted where the reply at DOT is 250 and somebody is to get it.

As a process: `python tests/smtpd.py --port 0 --script JSON` prints its port, then its counters as JSON for
every line it reads, and ends with its standard input.
"""

import argparse
import asyncio
import base64
import json
import re
import socket
import ssl
import struct
import sys
from contextlib import suppress
from typing import Literal, NamedTuple, NoReturn, Self

Script = dict[str, str | list[str]]

EXTENSIONS = ("PIPELINING", "SIZE 20000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")
USUAL = {
    "CONNECT": "220 scripted ESMTP",
    "STARTTLS": "220 2.0.0 go ahead",
    "AUTH": "235 2.7.0 welcome",
    "MAIL": "250 2.1.0 ok",
    "RCPT": "250 2.1.5 ok",
    "DOT": "250 2.0.0 queued",
    "RSET": "250 2.0.0 ok",
    "NOOP": "250 2.0.0 ok",
    "QUIT": "221 2.0.0 bye",
    "HELO": "250 scripted",
}


class Received(NamedTuple):
    """A mail this server took responsibility for; `data` is as it was before dot-stuffing."""

    sender: str
    recipients: list[str]
    data: bytes


class Smtpd:
    """The server. `async with Smtpd(script) as server:` listens on an ephemeral port of 127.0.0.1."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        extensions: tuple[str, ...] = EXTENSIONS,
        tls: Literal["implicit", "starttls"] | None = None,
        context: ssl.SSLContext | None = None,
        auth: tuple[str, ...] = (),
        port: int = 0,
    ) -> None:
        self.script = script or {}
        self.extensions = extensions
        self.tls, self.context = tls, context
        self.auth = auth  # the mechanisms offered, after STARTTLS where that is offered
        self.port = port
        self.mails: list[Received] = []
        self.lines: list[str] = []
        self.connections = 0
        self.open = 0
        self.times: dict[str, int] = {}
        self._changed = asyncio.Condition()
        self._released = asyncio.Event()
        self._talks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        context = self.context if self.tls == "implicit" else None
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    def counters(self) -> dict[str, object]:
        """What a test in another process asks for."""
        return {
            "accepted": len(self.mails),
            "connections": self.connections,
            "open": self.open,
            "mails": [[m.sender, m.recipients, m.data.decode("latin-1")] for m in self.mails],
            "lines": self.lines,
        }

    async def until(self, point: str, times: int = 1) -> None:
        """Wait until the conversation has come to the point so many times."""
        await self._when(lambda: self.times.get(point, 0) >= times)

    def release(self) -> None:
        """Let everything go on that is held, and whatever would be from now on."""
        self._released.set()

    async def until_released(self) -> None:
        """Wait for `release`."""
        await self._released.wait()

    async def idle(self) -> None:
        """Wait until every connection that was made is over."""
        await self._when(lambda: self.open == 0)

    async def _when(self, condition: object) -> None:
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(condition)

    async def note(self, point: str) -> None:
        """Remember that the conversation came to this point."""
        async with self._changed:
            self.times[point] = self.times.get(point, 0) + 1
            self._changed.notify_all()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._talks.add(task)
        self.connections += 1
        self.open += 1
        try:
            await _Talk(self, reader, writer).run()
        except (OSError, EOFError, _EndError, asyncio.CancelledError):
            pass  # the client ended it, the script did, or the test
        finally:
            writer.transport.abort()
            self._talks.discard(task)
            self.open -= 1
            await self.note("END")


class _EndError(Exception):
    """The script ends the connection."""


class _Talk:
    """One connection."""

    def __init__(self, server: Smtpd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.encrypted = server.tls == "implicit"
        self.sender: str | None = None
        self.recipients: list[str] = []

    async def run(self) -> None:
        await self.act("CONNECT", USUAL["CONNECT"])
        while True:
            line = await self.line()
            verb = line[:4].upper() if line[:8].upper() != "STARTTLS" else "STARTTLS"
            handle = getattr(self, f"on_{verb.lower()}", None)
            if handle is not None:
                await handle(line)
            elif verb in USUAL:
                await self.act(verb, USUAL[verb])
                if verb == "QUIT":
                    return
            else:
                await self.say("500 5.5.2 what?")

    async def on_ehlo(self, _: str) -> None:
        words = list(self.server.extensions)
        if self.server.tls == "starttls" and not self.encrypted:
            words.append("STARTTLS")
        elif self.server.auth:
            words.append("AUTH " + " ".join(self.server.auth))
        await self.act("EHLO", "\n".join(["250 scripted", *words]))

    async def on_starttls(self, _: str) -> None:
        if await self.act("STARTTLS", USUAL["STARTTLS"]) == 220:
            await self.writer.start_tls(self.server.context)
            self.encrypted = True

    async def on_auth(self, line: str) -> None:
        if line.upper() == "AUTH LOGIN":
            for prompt in ("334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"):
                await self.say(prompt)
                await self.line()
        point = f"AUTH:{_password(line)}"
        await self.act(point if point in self.server.script else "AUTH", USUAL["AUTH"])

    async def on_mail(self, line: str) -> None:
        usual = USUAL["MAIL"] if self.sender is None else "503 5.5.1 nested MAIL"
        if await self.act("MAIL", usual) == 250:
            self.sender, self.recipients = _address(line), []

    async def on_rcpt(self, line: str) -> None:
        address = _address(line)
        point = f"RCPT:{address}" if f"RCPT:{address}" in self.server.script else "RCPT"
        usual = "503 5.5.1 MAIL first" if self.sender is None else USUAL["RCPT"]
        if await self.act(point, usual) // 100 == 2:
            self.recipients.append(address)

    async def on_rset(self, _: str) -> None:
        self.sender, self.recipients = None, []
        await self.act("RSET", USUAL["RSET"])

    async def on_data(self, _: str) -> None:
        usual = "354 go on" if self.recipients else "554 5.5.1 no valid recipients"
        if await self.act("DATA", usual) != 354:
            return
        data = await self.content()
        action = self.action("DOT")
        # This server's commit point: from here on it has the mail, before it says so.
        if self.recipients and action.startswith(("ok", "slow", "held", "discard", "250", "accept")):
            self.server.mails.append(Received(self.sender, self.recipients, data))
        usual = USUAL["DOT"] if self.recipients else "554 5.5.1 nobody to send it to"
        await self.perform("DOT", action.removeprefix("accept "), usual)
        self.sender, self.recipients = None, []

    async def content(self) -> bytes:
        lines: list[bytes] = []
        while (line := await self.reader.readuntil(b"\n")) != b".\r\n":
            if not lines and "BODY" in self.server.script:
                await self.act("BODY", "")
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    async def line(self) -> str:
        line = (await self.reader.readuntil(b"\n")).decode("utf-8", "backslashreplace").rstrip("\r\n")
        self.server.lines.append(line)
        return line

    def action(self, point: str) -> str:
        actions = self.server.script.get(point, "ok")
        if isinstance(actions, str):
            return actions
        return actions[min(self.server.times.get(point, 0), len(actions) - 1)]

    async def act(self, point: str, usual: str) -> int:
        return await self.perform(point, self.action(point), usual)

    async def perform(self, point: str, action: str, usual: str) -> int:
        """Do what the script says and return the reply code that was said, 0 for none."""
        await self.server.note(point)
        verb, _, rest = action.partition(" ")
        if verb in ("drop", "reset", "hang", "freeze"):
            await self.end(verb)
        if verb == "raw":
            self.writer.write(rest.encode("latin-1"))
            await self.writer.drain()
            return int(rest[:3]) if rest[:3].isdigit() else 0
        if verb == "slow":
            await asyncio.sleep(float(rest))
        if verb == "held":
            await self.server.until_released()
        if verb == "discard":
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self.reader.read()
        if verb == "bye":
            await self.say(rest)
            await self.end("drop")
        return await self.say(usual if verb in ("ok", "slow", "held", "discard") else action)

    async def end(self, how: str) -> NoReturn:
        if how == "hang":
            await self.reader.read()
        if how == "freeze":
            await asyncio.Event().wait()
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        raise _EndError

    async def say(self, reply: str) -> int:
        if not reply:
            return 0
        code, texts = reply[:3], reply[4:].split("\n")
        wire = [f"{code}-{text}\r\n" for text in texts[:-1]] + [f"{code} {texts[-1]}\r\n"]
        self.writer.write("".join(wire).encode())
        await self.writer.drain()
        return int(code)


def _address(line: str) -> str:
    found = re.search("<([^>]*)>", line)
    return found[1] if found else ""


def _password(line: str) -> str:
    mechanism, _, token = line.removeprefix("AUTH ").partition(" ")
    return base64.b64decode(token).decode().rpartition("\0")[2] if mechanism == "PLAIN" and token else ""


async def _main() -> None:
    arguments = argparse.ArgumentParser(description="A scripted SMTP server.")
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--script", type=json.loads, default={})
    given = arguments.parse_args()
    async with Smtpd(given.script, port=given.port) as server:
        print(server.port, flush=True)  # noqa: T201
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(server.counters()), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_main())
