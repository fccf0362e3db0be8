"""Filters whose result depends on the locale: dates, numbers and money as a reader of that language writes them.

What was formatted once is remembered: mails of one day tend to show the same dates.
"""

from collections.abc import Callable
from datetime import date
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from typing import Any

from babel import Locale, dates, numbers

from postroom.templates.filters import Refusal
from postroom.templates.locales import DEFAULT_LOCALE, babel_locale, fallbacks

DATE_FORMATS = ("short", "medium", "long", "full")
REMEMBERED = 4_096


@cache
def currencies() -> frozenset[str]:
    """The codes of ISO 4217 that there are and were."""
    return frozenset(numbers.list_currencies())


@lru_cache(maxsize=256)
def _babel(locale: str) -> Locale:
    for tag in (*fallbacks(locale), DEFAULT_LOCALE):
        if (found := babel_locale(tag)) is not None:
            return found
    raise AssertionError("Babel knows English")


def _date(locale: str, value: Any, form: Any = "long") -> str:
    """`2026-03-09` as `March 9, 2026`, or `9. März 2026`."""
    if form not in DATE_FORMATS:
        raise Refusal(f"the date filter takes one of {', '.join(DATE_FORMATS)}")
    if not isinstance(value, str):
        raise Refusal("the date filter takes a date")
    return _shown_date(locale, value, form)


@lru_cache(maxsize=REMEMBERED)
def _shown_date(locale: str, value: str, form: Any) -> str:
    try:
        day = date.fromisoformat(value)
    except ValueError:
        raise Refusal("the date filter takes a date") from None
    return dates.format_date(day, form, _babel(locale))


def _number(locale: str, value: Any) -> str:
    """`1234.5` as `1,234.5`, or `1.234,5`."""
    return _shown_number(locale, _counted(value, "number"), None)


def _decimals(locale: str, value: Any, places: Any = 2) -> str:
    """`1234.5` as `1,234.50`, or `1.234,50`."""
    if type(places) is not int or not 0 <= places <= 9:
        raise Refusal("the decimals filter takes a number, and 0 to 9 places")
    return _shown_number(locale, _counted(value, "decimals"), f"#,##0.{'0' * places}".rstrip("."))


def _percent(locale: str, value: Any) -> str:
    """`0.25` as `25%`, or `25 %`."""
    return _shown_percent(locale, _counted(value, "percent"))


@lru_cache(maxsize=REMEMBERED)
def _shown_number(locale: str, value: str, form: str | None) -> str:
    return numbers.format_decimal(Decimal(value), form, _babel(locale))


@lru_cache(maxsize=REMEMBERED)
def _shown_percent(locale: str, value: str) -> str:
    return numbers.format_percent(Decimal(value), locale=_babel(locale))


def _money(locale: str, value: Any) -> str:
    """`{"amount": "1234.50", "currency": "EUR"}` as `€1,234.50`, or `1.234,50 €`."""
    if not isinstance(value, dict) or value.keys() != {"amount", "currency"}:
        raise Refusal("the money filter takes a variable of the type money")
    return _shown_money(locale, str(value["amount"]), str(value["currency"]))


@lru_cache(maxsize=REMEMBERED)
def _shown_money(locale: str, amount: str, currency: str) -> str:
    try:
        exact = Decimal(amount)
    except InvalidOperation:
        raise Refusal("the money filter takes a variable of the type money") from None
    # The caller has done the sums: what has more places than the currency is shown as it was given.
    places = -int(exact.as_tuple().exponent)
    digits = places <= numbers.get_currency_precision(currency)
    return numbers.format_currency(
        exact, currency, locale=_babel(locale), currency_digits=digits, decimal_quantization=digits
    )


def _counted(value: Any, name: str) -> str:
    if type(value) not in (int, float):
        raise Refusal(f"the {name} filter takes a number")
    return repr(value)


LOCALE_FILTERS: dict[str, Callable[..., str]] = {
    "date": _date,
    "decimals": _decimals,
    "money": _money,
    "number": _number,
    "percent": _percent,
}
