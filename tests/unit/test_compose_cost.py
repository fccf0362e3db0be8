"""What a mail costs, as a ratio taken in one run: rendering and composing it here, and with Jinja2 and EmailMessage."""

import email.policy
import time
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

import jinja2

from postroom.compose import compose
from postroom.message import Address, Mail
from postroom.templates import TemplateSet

SHIPPED = Path(__file__).parents[2] / "templates"
LEAST_RATIO = 20
ROUNDS = 25
FILTERS = {"date": lambda _: "March 9, 2026", "number": str, "url": str}


def least_seconds(*works):
    """The least time of each work over many rounds, taken in turn, so that whatever else the machine does meets both."""
    least = [float("inf")] * len(works)
    for _ in range(ROUNDS):
        for index, (work, times) in enumerate(works):
            started = time.process_time()
            for _ in range(times):
                work()
            least[index] = min(least[index], (time.process_time() - started) / times)
    return least


def test_a_mail_costs_a_twentieth_of_jinja_and_email_message():
    """Render and compose of order_shipped, and the same mail with the tools one would take otherwise."""
    template = TemplateSet.load_folder(SHIPPED).get("order_shipped")
    variables = template.examples
    sources = {
        part: "".join(piece.text for piece in found.outline.parts)
        for part, found in template._pieces["en"].items()
    }
    options = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environments = {part: jinja2.Environment(autoescape=part == "html", **options) for part in sources}
    for environment in environments.values():
        environment.filters.update(FILTERS)
    theirs = {part: environments[part].from_string(source) for part, source in sources.items()}

    def ours():
        content = template.render(variables)
        return compose(
            Mail(
                id="orders-1",
                message_id="<1@shop.example>",
                date=1_700_000_000,
                sender=Address("orders@shop.example", "Shop"),
                to=(Address("ada@example.com", "Ada Lovelace"),),
                content=content,
            )
        ).data

    def classic():
        message = EmailMessage(policy=email.policy.SMTP)
        message["From"] = "Shop <orders@shop.example>"
        message["To"] = "Ada Lovelace <ada@example.com>"
        message["Subject"] = theirs["subject"].render(variables).strip()
        message["Date"] = format_datetime(datetime.fromtimestamp(1_700_000_000, UTC))
        message["Message-ID"] = "<1@shop.example>"
        message["X-Postroom-Id"] = "orders-1"
        message.set_content(theirs["text"].render(variables))
        message.add_alternative(theirs["html"].render(variables), subtype="html")
        return message.as_bytes()

    texts = []
    for data in (ours(), classic()):
        parsed = email.message_from_bytes(data, policy=email.policy.default)
        texts.append(
            [
                parsed["Subject"],
                *(parsed.get_body((kind,)).get_content().split() for kind in ("plain", "html")),
            ]
        )
    assert texts[0][:2] == texts[1][:2]
    assert len(texts[0][2]) == len(texts[1][2])

    mine, other = least_seconds((ours, 40), (classic, 4))
    assert other / mine >= LEAST_RATIO, f"{mine * 1e6:.0f} µs against {other * 1e6:.0f} µs"
