"""Locales: how they are written, what one falls back to, and which of them Babel can format for."""

import re
from functools import lru_cache

from babel import Locale, UnknownLocaleError

DEFAULT_LOCALE = "en"
TAG = r"[a-z]{2,3}(?:-[A-Z][a-z]{3})?(?:-(?:[A-Z]{2}|[0-9]{3}))?"

_TAG = re.compile(TAG)


def is_locale(tag: str) -> bool:
    """True for a tag in its usual form (`de`, `de-AT`, `zh-Hant-TW`) that Babel knows."""
    return _TAG.fullmatch(tag) is not None and babel_locale(tag) is not None


def usual_form(tag: str) -> str:
    """Write a tag as it is usually written: `DE_at` as `de-AT`."""
    language, *rest = tag.replace("_", "-").split("-")
    return "-".join([language.lower(), *(p.title() if len(p) == 4 else p.upper() for p in rest)])


def fallbacks(tag: str) -> list[str]:
    """Return the tag and what it falls back to: `de-AT`, then `de`."""
    parts = tag.split("-")
    return ["-".join(parts[:end]) for end in range(len(parts), 0, -1)]


@lru_cache(maxsize=256)
def babel_locale(tag: str) -> Locale | None:
    """Return what Babel formats by for this tag, if it knows the tag."""
    try:
        return Locale.parse(tag, sep="-")
    except (UnknownLocaleError, ValueError):
        return None
