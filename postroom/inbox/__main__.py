"""`python -m postroom.inbox`: the inbox as a process of its own."""

import argparse
import asyncio
import json
import logging
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from postroom.ids import is_message_id
from postroom.inbox.app import ListenError, Settings, serve
from postroom.inbox.refs import Resolve
from postroom.inbox.store import ForeignFileError
from postroom.ledger.clients import reading_client
from postroom.ledger.reading import Reading

log = logging.getLogger("postroom.inbox")


def main(arguments: list[str] | None = None) -> None:
    """Run until SIGTERM or Ctrl-C. Ends with status 1 and one line when it cannot start."""
    options = _parser().parse_args(arguments)
    _log_as_json()
    settings = Settings(
        host=options.host,
        http_port=options.http_port,
        smtp_port=options.smtp_port,
        data=options.data,
        api_url=options.api_url.rstrip("/"),
        allowed_hosts=tuple(options.allow_host),
    )
    try:
        asyncio.run(_run(settings, make_resolver(options.redis_url)))
    except ForeignFileError as error:
        sys.exit(f"postroom inbox: {error}; delete it, or choose another file with --data")
    except (ListenError, OSError) as error:
        sys.exit(f"postroom inbox: {error}")


def make_resolver(redis_url: str | None) -> Resolve | None:
    """Return the function that finds a message's client_ref in Postroom's ledger, if there is one to ask."""
    if redis_url is None:
        return None
    reading = Reading(reading_client(redis_url))

    async def resolve(message_id: str) -> str | None:
        stored = await reading.message(message_id) if is_message_id(message_id) else None
        return stored.record.client_ref if stored else None

    return resolve


async def _run(settings: Settings, resolve: Resolve | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(settings, resolve) as running:
        places = {"url": running.url, "http_port": running.http_port, "smtp_port": running.smtp_port}
        log.info("inbox.started", extra=places)
        await stop.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m postroom.inbox",
        description="An inbox for development and tests: takes every mail over SMTP, delivers none, and shows"
        " them on a web page and as JSON.",
        epilog="Try: curl 'http://127.0.0.1:8081/api/messages?to=ada@example.com&wait=5s'",
    )
    standard = Settings()
    add = parser.add_argument
    add("--host", default=standard.host, help="address to listen on (%(default)s)")
    add(
        "--http-port",
        type=_port,
        default=standard.http_port,
        metavar="PORT",
        help="page and API; 0: any (%(default)s)",
    )
    add(
        "--smtp-port",
        type=_port,
        default=standard.smtp_port,
        metavar="PORT",
        help="SMTP; 0: any (%(default)s)",
    )
    add(
        "--data",
        type=Path,
        default=standard.data,
        metavar="FILE",
        help="where the mails are kept (%(default)s)",
    )
    add("--redis-url", metavar="URL", help="Postroom's Redis, to show each mail's client_ref")
    add(
        "--api-url",
        default=standard.api_url,
        metavar="URL",
        help="Postroom's API, for the page's examples (%(default)s)",
    )
    add(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="one more host name to answer to, such as a container's; may be repeated",
    )
    return parser


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"{number} is not a port")
    return number


class _JsonLines(logging.Formatter):
    """One JSON object a line, with what was given as `extra`."""

    _STANDARD = frozenset(vars(logging.makeLogRecord({})))

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in self._STANDARD}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _log_as_json() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # aiosmtpd logs every command with its addresses, at INFO.
    logging.getLogger("mail.log").setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
