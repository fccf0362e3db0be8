"""Several Redis servers at once, over TCP, as users run them: with TLS and users, with replicas and sentinels."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import trustme

from tests.redisd import redis_binary
from tests.stack import free_port


def ask(port: int, *words: str | int, timeout: float = 5.0) -> bytes:
    """Send one command to a server in the clear; return the raw reply."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        parts = [str(word).encode() for word in words]
        connection.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
        return connection.recv(65536)


class Server:
    """One process of Redis, or of a sentinel, on a port of its own."""

    def __init__(
        self, folder: Path, *options: str | int, port: int | None = None, sentinel: bool = False
    ) -> None:
        self.port = port or free_port()
        self.folder = folder / f"redis-{self.port}"
        self.folder.mkdir()
        self._options = options
        self._sentinel = sentinel
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Server":
        """Start it; it may not answer yet."""
        words = [str(option) for option in self._options]
        if self._sentinel:
            config = self.folder / "sentinel.conf"
            config.write_text("\n".join([f"port {self.port}", f"dir {self.folder}", *words]) + "\n")
            command = [redis_binary(), str(config), "--sentinel"]
        else:
            command = [redis_binary(), "--port", str(self.port), "--dir", str(self.folder)]
            command += ["--appendonly", "yes", "--save", "", "--repl-diskless-sync-delay", "0", *words]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        return self

    def until_up(self) -> "Server":
        """Wait until something listens."""
        deadline = time.monotonic() + 10
        while True:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """Send it a signal; after SIGKILL wait for its end."""
        assert self.process is not None
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
            if number in (signal.SIGKILL, signal.SIGTERM):
                self.process.wait(10)


class Servers:
    """Use `with`: everything started is stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Server] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.all:
            with suppress(ProcessLookupError):
                server.signal(signal.SIGCONT)
            server.signal(signal.SIGKILL)

    def start(self, *options: str | int, **more: object) -> Server:
        """Start one and wait until it listens."""
        server = Server(self.folder, *options, **more)
        self.all.append(server)
        return server.start().until_up()

    def start_with_tls(self, *options: str | int) -> tuple[Server, Path]:
        """Start one that speaks TLS only; return it and the file of its authority."""
        authority, certificate = trustme.CA(), self.folder / "redis.pem"
        authority.cert_pem.write_to_path(self.folder / "ca.pem")
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
            certificate
        )
        port = free_port()
        server = Server(
            self.folder, "--port", 0, "--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", certificate,
            "--tls-ca-cert-file", self.folder / "ca.pem", "--tls-auth-clients", "no", *options, port=port,
        )  # fmt: skip
        self.all.append(server)
        return server.start().until_up(), self.folder / "ca.pem"

    def start_sentinels(self, primary: Server, count: int = 3) -> list[Server]:
        """Start sentinels that watch the primary as `mail`, and wait until they know each other and its replicas."""
        lines = (
            f"sentinel monitor mail 127.0.0.1 {primary.port} {count // 2 + 1}",
            "sentinel down-after-milliseconds mail 1000",
            "sentinel failover-timeout mail 3000",
        )
        started = [self.start(*lines, sentinel=True) for _ in range(count)]
        deadline = time.monotonic() + 20
        known = b"sentinels=%d" % count
        while any(
            known not in ask(s.port, "INFO", "sentinel") or b"slaves=2" not in ask(s.port, "INFO", "sentinel")
            for s in started
        ):
            assert time.monotonic() < deadline, ask(started[0].port, "INFO", "sentinel")
            time.sleep(0.05)
        return started


class Cluster:
    """Three primaries, each with a replica. Use it inside of `Servers`."""

    def __init__(self, servers: Servers) -> None:
        options = (
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            1500,
            "--cluster-replica-validity-factor",
            0,
        )
        # By itself a node talks to the others at 10,000 above its port, which may be some connection's own end.
        buses = [free_port() for _ in range(6)]
        self.nodes = [servers.start(*options, "--cluster-port", bus) for bus in buses]
        first, edges = self.nodes[0], (0, 5461, 10923, 16384)
        for node, bus in zip(self.nodes[1:], buses[1:], strict=True):
            ask(first.port, "CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        for n in range(3):
            ask(self.nodes[n].port, "CLUSTER", "ADDSLOTSRANGE", edges[n], edges[n + 1] - 1)
        self._until(lambda: all(b"cluster_known_nodes:6" in self._info(node) for node in self.nodes))
        for n in range(3):
            self._until(lambda n=n: self._replicates(self.nodes[n + 3], self.nodes[n]))
        self._until(lambda: all(b"cluster_state:ok" in self._info(node) for node in self.nodes))
        links = lambda: [ask(node.port, "INFO", "replication") for node in self.nodes[3:]]  # noqa: E731
        self._until(lambda: all(b"master_link_status:up" in link for link in links()))

    @property
    def url(self) -> str:
        """What Postroom is given."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def id_of(self, node: Server) -> str:
        """Return a node's id."""
        return ask(node.port, "CLUSTER", "MYID").split(b"\r\n")[1].decode()

    def primary_of(self, slot: int, among: list[Server] | None = None) -> Server | None:
        """Return the node that serves a slot, as a living one knows it; None where it says nobody."""
        for asked in among or self.nodes:
            assert asked.process is not None
            if asked.process.poll() is not None:
                continue
            for line in ask(asked.port, "CLUSTER", "NODES").decode().splitlines():
                words = line.split()
                if len(words) > 8 and "fail" not in words[2].split(","):
                    for part in words[8:]:
                        low, _, high = part.partition("-")
                        if low.isdigit() and int(low) <= slot <= int(high or low):
                            port = int(words[1].partition("@")[0].rpartition(":")[2])
                            return next(node for node in self.nodes if node.port == port)
        return None

    def move(self, slot: int, target: Server, pause: float = 0.0) -> int:
        """Move a slot as `redis-cli --cluster reshard` does, `pause` seconds between its steps; return its keys."""
        source = self.primary_of(slot)
        ask(target.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        ask(source.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))
        moved = 0
        while names := [
            w for w in ask(source.port, "CLUSTER", "GETKEYSINSLOT", slot, 20).split(b"\r\n")[2::2] if w
        ]:
            words = [name.decode() for name in names]
            reply = ask(source.port, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *words)
            assert reply.startswith((b"+OK", b"+NOKEY")), reply
            moved += len(names)
            time.sleep(pause)
        for node in (target, source, *self.nodes):
            if node.process is not None and node.process.poll() is None:
                ask(node.port, "CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))
        return moved

    def _replicates(self, replica: Server, primary: Server) -> bool:
        return b"+OK" in ask(replica.port, "CLUSTER", "REPLICATE", self.id_of(primary))

    def _info(self, node: Server) -> bytes:
        return ask(node.port, "CLUSTER", "INFO")

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def primary_of(sentinel: Server) -> int:
    """Return the port of the primary as a sentinel knows it."""
    return int(ask(sentinel.port, "SENTINEL", "get-master-addr-by-name", "mail").split(b"\r\n")[4])


def has_tls() -> bool:
    """True where the Redis that is here was built with TLS; one that was not may know the options all the same."""
    certificate = ["--tls-cert-file", "/nonexistent", "--tls-key-file", "/nonexistent"]
    command = [redis_binary(), "--port", "0", "--tls-port", str(free_port()), *certificate]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return "Failed to configure TLS" in done.stdout + done.stderr
