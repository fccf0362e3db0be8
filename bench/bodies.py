"""The requests that are posted, to Postroom and to the stacks it is compared with alike."""

import json
import re
from typing import Any

TOKEN = "pr_bench_token_of_a_machine_that_lives_ten_minutes"
MARKER = "B00000000"  # stands in the ref and in the subject; a load puts its own number there
FIND_MARKER = re.compile(rb"B[0-9]{8}\b").search

ITEMS = (
    ("Enamel mug, midnight blue", 2),
    ("Ceylon loose-leaf tea, 250 g", 1),
    ("Beeswax candle, 12 hours", 4),
    ("Linen napkin, natural", 6),
    ("Walnut serving board, small", 1),
)


def marker(number: int) -> str:
    """Return the marker of one message."""
    return f"B{number:08d}"


def order(agent: str = "orders", items: int = len(ITEMS)) -> dict[str, Any]:
    """Return a request of about 1 KB: a shipped order from the template that comes with Postroom."""
    return {
        "client_ref": f"order-{MARKER}-shipped",
        "agent": agent,
        "to": [{"address": "ada.lovelace@customers.example", "name": "Ada Lovelace"}],
        "template": {
            "name": "order_shipped",
            "variables": {
                "first_name": "Ada",
                "order_number": MARKER,
                "tracking_url": f"https://parcels.shop.example/track/{MARKER}?from=mail&lang=en",
                "carrier": "Swift Parcel",
                "eta": "2026-03-09",
                "items": [{"name": name, "quantity": count} for name, count in ITEMS[:items]],
                "shop_name": "The Corner Shop",
                "support_email": "help@shop.example",
                "company_address": "12 Harbour Street, 1010 Example City",
            },
        },
        "metadata": {"order": MARKER, "warehouse": "north-2", "campaign": "none"},
    }


class Template:
    """A request as bytes in pieces, so that a load writes each one by a join."""

    def __init__(self, port: int, body: dict[str, Any], path: str = "/v1/messages") -> None:
        raw = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        )
        self.size = len(raw)
        self._pieces = (head.encode() + raw).split(MARKER.encode())

    def write(self, number: int) -> bytes:
        """Return the whole request with this number."""
        return (b"B%08d" % number).join(self._pieces)
