"""The requests that are posted, to Postroom and to the stacks it is compared with alike."""

import json
import re
from pathlib import Path
from typing import Any

TOKEN = "pr_bench_token_of_a_machine_that_lives_ten_minutes"
TEMPLATES = Path(__file__).parent / "templates"  # in words that Postroom's language and Jinja2 have in common
MARKER = "B00000000"  # stands in the ref and in the subject; a load puts its own number there
FIND_MARKER = re.compile(rb"B[0-9]{8}\b").search

ITEMS = (
    ("Enamel mug, midnight blue", 2),
    ("Ceylon loose-leaf tea, 250 g", 1),
    ("Beeswax candle, 12 hours", 4),
    ("Linen napkin, natural", 6),
    ("Walnut serving board, small", 1),
)

GOODS = (
    "Enamel mug, midnight blue, 350 ml, dishwasher safe",
    "Ceylon loose-leaf tea, first flush, 250 g tin",
    "Beeswax candle, hand-dipped, burns about 12 hours",
    "Linen napkins, natural undyed, set of six",
    "Walnut serving board, oiled, 38 x 22 cm",
    "Cast-iron skillet, pre-seasoned, 26 cm",
    "Merino blanket, herringbone, 140 x 200 cm",
    "Brass desk lamp with dimmer and fabric cord",
    "Stoneware pour-over dripper, size 02",
    "Cotton tote bag, heavy canvas, inner pocket",
    "Fountain pen, fine nib, with converter",
    "Notebook, dotted, 192 pages, thread-bound",
    "Olive wood salad servers, pair",
    "Copper watering can, half a litre",
    "Garden twine, tarred hemp, 80 m",
    "Wool socks, ribbed, size 42 to 44",
    "Picture frame, oak, A4, museum glass",
    "Bicycle bell, polished steel, 60 mm",
    "Travel alarm clock, folding, luminous hands",
    "Shaving brush, badger-free synthetic, birch handle",
    "Paring knife, carbon steel, 8 cm blade",
    "Honey, lime blossom, raw, 500 g jar",
    "Door mat, coir, 60 x 40 cm",
    "Umbrella, windproof, ash handle, forest green",
    "Jigsaw puzzle, harbour at dusk, 1000 pieces",
    "Woodblock calendar, perpetual",
    "Sourdough proofing basket, rattan, 1 kg",
    "Kitchen scale, mechanical, up to 5 kg",
    "Rope dog leash, 1.8 m, brass clip",
    "Field binoculars, 8 x 32, with case",
    "Chess set, weighted pieces, roll-up board",
    "Leather key ring, cognac, riveted",
    "Apron, waxed cotton, cross-back straps",
    "Tea towel, half linen, blue stripe",
    "Pepper mill, beech, ceramic grinder",
    "Reading stand, bamboo, adjustable",
    "Sewing kit in a tin, 24 threads",
    "Hand cream, marigold, 75 ml",
    "Pocket torch, aluminium, rechargeable",
    "Wall hook, forged iron, pack of four",
    "Letter paper, laid, 50 sheets",
    "Plant mister, glass and brass",
    "Gift card, printed on cotton paper",
)


def marker(number: int) -> str:
    """Return the marker of one message."""
    return f"B{number:08d}"


def order(agent: str = "orders", items: int = len(ITEMS)) -> dict[str, Any]:
    """Return a request of about 1 KB: a shipped order, html and text from a template."""
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


def basket() -> dict[str, Any]:
    """Return a request of about 4 KB: a large order to two people, with a copy for the shop's archive."""
    body = order()
    body["template"]["variables"]["items"] = [
        {"name": name, "quantity": n % 5 + 1} for n, name in enumerate(GOODS)
    ]
    body["to"].append({"address": "charles.babbage@customers.example", "name": "Charles Babbage"})
    body["bcc"] = [{"address": "archive@shop.example"}]
    body["reply_to"] = [{"address": "orders-team@shop.example", "name": "Orders at The Corner Shop"}]
    body["metadata"] |= {
        "basket": "6f1d2c84-93ab-4e07-b5d8-0a71c3e9f264",
        "channel": "web",
        "shop": "eu-central",
    }
    return body


def note(agent: str = "orders") -> dict[str, Any]:
    """Return a small request without a template, for when many are sent and their content does not matter."""
    return {
        "client_ref": f"note-{MARKER}",
        "agent": agent,
        "to": [{"address": "ada.lovelace@customers.example"}],
        "content": {"subject": f"Note {MARKER}", "text": "Your parcel was handed over today.\n"},
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
