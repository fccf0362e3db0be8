"""Connections that carry one mail after the other, and what is under them."""

import asyncio
import json
import ssl
import sys
from asyncio.subprocess import PIPE
from collections import deque
from contextlib import suppress

import pytest

from postroom.config.structs import SmtpChannel
from postroom.outcome import (
    Ambiguous,
    Answer,
    Cause,
    Deferred,
    Phase,
    Sent,
    Submitted,
)
from tests import smtpd
from tests.channels.conformance import (
    CANARY,
    MAILS,
    Mark,
    attempt,
    order_for,
)
from tests.channels.relay import relay_to, submit_to
from tests.smtpd import Smtpd
from workers.channels import smtp_connection
from workers.channels.smtp import SmtpRelay
from workers.channels.smtp_reply import GarbageError, ReplyParser
from workers.channels.smtp_stream import Loss, LostError, SmtpStream

LARGE = 20_000_000  # bytes: more than the kernel takes in for a server that does not read


class TestWarmConnections:
    @pytest.mark.parametrize("how", ["drop", "reset", "421 4.4.2 idle", "421 enough for one connection"])
    async def test_found_dead_is_replaced_free_of_charge(self, how):
        """A used connection that is dead when the next mail comes is replaced, and the mail is sent once."""
        async with Smtpd({"MAIL": ["ok", how, "ok"]}) as server:
            connection = await relay_to(server).connect()
            marks = [Mark(), Mark()]
            ends = [await connection.submit(order_for(MAILS["plain"]), mark) for mark in marks]
            await connection.aclose()

        assert [Sent(), Sent()] == [ended.answers[0].outcome for ended in ends]
        assert (2, 2) == (server.connections, len(server.mails))
        assert [1, 1] == [len(mark.told) for mark in marks]

    async def test_closed_while_idle_is_replaced_free_of_charge(self):
        """A connection that the server gave up between two mails still submits, over a new one."""
        async with Smtpd({"DOT": ["accept raw 250 ok\r\n421 4.4.2 bye\r\n", "ok"]}) as server:
            connection = await relay_to(server).connect()
            await connection.submit(order_for(MAILS["plain"]), Mark())
            ended = await connection.submit(order_for(MAILS["plain"]), Mark())
            await connection.aclose()

        assert Sent() == ended.answers[0].outcome
        assert 2 == server.connections

    async def test_an_unused_one_that_idled_is_replaced_too(self, monkeypatch):
        """A connection that waited for its first mail may be found dead as well."""
        monkeypatch.setattr(smtp_connection, "WARM_SECONDS", -1.0)
        async with Smtpd({"MAIL": ["drop", "ok"]}) as server:
            ended = await submit_to(server)

        assert (Sent(), 2) == (ended.answers[0].outcome, server.connections)

    async def test_a_replacement_that_fails_is_the_channels_fault(self):
        """When no new connection can be had, the message goes back untouched."""
        async with Smtpd({"MAIL": ["ok", "drop"], "CONNECT": ["ok", "421 4.7.0 enough"]}) as server:
            connection = await relay_to(server).connect()
            await connection.submit(order_for(MAILS["plain"]), Mark())
            mark = Mark()
            fault = await connection.submit(order_for(MAILS["plain"]), mark)

        assert (Cause.THROTTLE, []) == (fault.cause, mark.told)

    async def test_it_is_replaced_once(self):
        """A server that drops every MAIL gets two tries, then the message is Deferred."""
        async with Smtpd({"MAIL": ["ok", "drop"]}) as server:
            connection = await relay_to(server).connect()
            await connection.submit(order_for(MAILS["plain"]), Mark())
            ended = await connection.submit(order_for(MAILS["plain"]), Mark())

        assert Submitted((Answer(Deferred(Phase.MAIL)),)) == ended
        assert 2 == server.connections

    async def test_a_throttled_warm_connection_is_not_replaced(self):
        """421 4.7.x is about our pace, on a warm connection too."""
        async with Smtpd({"MAIL": ["ok", "421 4.7.0 slow down"]}) as server:
            connection = await relay_to(server).connect()
            await connection.submit(order_for(MAILS["plain"]), Mark())
            fault = await connection.submit(order_for(MAILS["plain"]), Mark())

        assert (Cause.THROTTLE, 1) == (fault.cause, server.connections)

    async def test_something_said_unasked_makes_it_unusable(self):
        """A connection out of step is given up, even though the mail before it was sent."""
        async with Smtpd({"DOT": "accept raw 250 ok\r\n250 ok\r\n"}) as server:
            connection = await relay_to(server).connect()
            ended = await connection.submit(order_for(MAILS["plain"]), Mark())

            assert (Sent(), False) == (ended.answers[0].outcome, connection.usable)
            await connection.aclose()

    async def test_it_retires_after_its_share_of_messages(self):
        """A connection carries `messages_per_connection`, and is used up then."""
        async with Smtpd() as server:
            connection = await relay_to(server, messages_per_connection=2).connect()
            usable = []
            for _ in range(2):
                await connection.submit(order_for(MAILS["plain"]), Mark())
                usable.append(connection.usable)
            await connection.aclose()

        assert [True, False] == usable

    async def test_it_retires_when_idle(self):
        """A connection that had no work for `idle` is used no more, though it lives."""
        async with Smtpd() as server:
            connections = [await relay_to(server, idle=idle).connect() for idle in ("30s", "0s")]
            usable = [connection.usable for connection in connections]
            for connection in connections:
                await connection.aclose()

        assert [True, False] == usable

    @pytest.mark.parametrize("how", ["drop", "reset", "hang", "500 no", "raw \x00\r\n"])
    async def test_closing_never_raises(self, how):
        """QUIT is said once, and whatever the server makes of it the connection is closed."""
        async with Smtpd({"QUIT": how}) as server:
            connection = await relay_to(server).connect()
            await connection.aclose()
            await connection.aclose()
            await server.idle()

        assert 1 == server.lines.count("QUIT")


class TestStream:
    async def test_a_slow_line_is_no_timeout(self):
        """As long as some of the body leaves within each timeout, the wait goes on; then it ends."""
        sizes = [9, 7, 5, 5]
        stream = SmtpStream()
        stream.connection_made(StubTransport(sizes))
        stream.pause_writing()

        with pytest.raises(LostError) as lost:
            await stream.drain(0.01)

        assert (Loss.TIMEOUT, []) == (lost.value.loss, sizes)

    async def test_under_tls_too_it_waits_until_the_kernel_has_it_all(self, authority, context):
        """A server that takes in nothing is a timeout; one that goes on reading is none, and all of it arrives."""
        may_read, taken = asyncio.Event(), asyncio.Queue()

        async def take(reader, writer):
            await may_read.wait()
            with suppress(asyncio.IncompleteReadError):
                await taken.put(len(await reader.readexactly(LARGE)))
                await reader.read()
            writer.close()

        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=context)

        async def begin() -> SmtpStream:
            port = server.sockets[0].getsockname()[1]
            _, stream = await asyncio.get_running_loop().create_connection(SmtpStream, "127.0.0.1", port)
            await stream.start_tls(trusting, "localhost")
            stream.write(b"x" * LARGE)
            return stream

        async with server:
            with pytest.raises(LostError) as lost:
                await (await begin()).drain(0.2)
            assert Loss.TIMEOUT == lost.value.loss
            stream = await begin()
            draining = asyncio.ensure_future(stream.drain(30.0))
            assert set() == (await asyncio.wait({draining}, timeout=0.1))[0]
            may_read.set()
            await draining
            assert LARGE == await asyncio.wait_for(taken.get(), 30)
            stream.abort()

    async def test_a_flood_of_replies_is_garbage(self):
        """Replies nobody asked for do not fill the memory."""
        stream = SmtpStream()
        stream.data_received(b"250 ok\r\n" * 300)

        assert Loss.GARBAGE == stream.loss


class StubTransport(asyncio.Transport):
    """Has so many bytes left each time it is asked."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.sizes = sizes

    def set_write_buffer_limits(self, high=None, low=None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.sizes.pop(0)

    def abort(self) -> None:
        pass


class TestScriptedServer:
    async def test_as_a_process(self):
        """The scripted server also runs on its own: its port first, its counters for each line asked."""
        script = json.dumps({"DOT": "accept drop"})
        process = await asyncio.create_subprocess_exec(
            sys.executable, smtpd.__file__, "--script", script, stdin=PIPE, stdout=PIPE
        )
        config = SmtpChannel(
            name="relay", host="127.0.0.1", port=int(await process.stdout.readline()), tls="none"
        )
        ended = await attempt(SmtpRelay(config), order_for(MAILS["plain"]), Mark())
        process.stdin.write(b"\n")
        counters = json.loads(await process.stdout.readline())
        process.stdin.close()

        assert (Ambiguous(Phase.DONE), 0) == (ended.answers[0].outcome, await process.wait())
        assert (1, 1) == (counters["accepted"], counters["connections"])


class TestReplyParser:
    @pytest.mark.parametrize("size", [1, 2, 7, 100])
    def test_replies_come_in_any_pieces(self, size):
        """However the bytes are cut, the same replies come out."""
        wire = b"250-2.1.0 a\r\n250 b\r\n354\r\n550 5.1.1 c\n"
        parser, replies = ReplyParser(), deque()
        for start in range(0, len(wire), size):
            parser.feed(wire[start : start + size], replies)

        assert [(250, "2.1.0"), (354, None), (550, "5.1.1")] == [(r.code, r.enhanced) for r in replies]
        assert (["2.1.0 a", "b"], False) == (replies[0].lines, parser.pending)

    @pytest.mark.parametrize(
        "wire",
        [
            b"\r\n",
            b"25\r\n",
            b"250_a\r\n",
            b"\xb2\xb2\xb2 a\r\n",
            b"150 a\r\n",
            b"650 a\r\n",
            b"250-a\r\n251 b\r\n",
            b"250 " + b"a" * 5000 + b"\r\n",
            b"a" * 5000,
            b"250-aaaa\r\n" * 10_000,
        ],
        ids=lambda wire: repr(wire[:12]),
    )
    def test_nonsense_is_garbage(self, wire):
        """What is not a reply, or longer than any, is refused and not stored."""
        with pytest.raises(GarbageError):
            ReplyParser().feed(wire, deque())

    def test_a_reply_never_prints_its_text(self):
        """A reply may echo addresses, so its repr has none of its text."""
        replies = deque()
        ReplyParser().feed(f"550 5.1.1 {CANARY}\r\n".encode(), replies)

        assert "Reply(550)" == repr(replies[0])
