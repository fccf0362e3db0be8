"""minijinja with everything unbounded taken out: strict, on fuel, escaping by file, counting its output."""

import re
import threading
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import minijinja

from postroom.templates.filters import OWN_FILTERS, Refusal, bounded_range
from postroom.templates.formats import LOCALE_FILTERS
from postroom.templates.language import ENGINE_FILTERS
from postroom.templates.locales import DEFAULT_LOCALE

MAX_FUEL = 100_000  # steps of the engine; a mail with a thousand list items takes a third of it
MAX_REPEATED = 64 * 1024 * 1024  # characters that loops can write out of literals, whatever the fuel
MAX_OUTPUT_BYTES = 1_000_000  # of one part
MAX_FILTERED = 5_000_000  # characters and list items that filters look at
FORMATTED = 200  # what formatting a date or a number counts as
UNCOUNTED = 100  # characters too few to count: fuel bounds how often they can come

# Every filter and function of minijinja 3.0, so that what is not allowed is not there either.
_BUILTIN_FILTERS = """
    abs attr batch bool capitalize chain count d default dictsort e escape filesizeformat first float format
    groupby indent int items join last length lines list lower map max min pluralize pprint reject rejectattr
    replace reverse round safe select selectattr slice sort split string striptags sum title tojson trim
    truncate unique upper urlencode wordwrap zip
"""
_BUILTIN_FUNCTIONS = ("cycler", "debug", "dict", "joiner", "namespace", "range")
_REASONS = {
    "OutOfFuel": "takes too many steps",
    "UndefinedError": "uses something undefined",
    "InvalidOperation": "does what its values do not allow",
}
_SHOWN = {
    type(None): "a value that is not there",
    bool: "true or false",
    list: "a whole list",
    dict: "a whole object",
}
_ONLY = "file"  # the name of the one file in an environment
_SAID_LAST = re.compile(r" \(in [^()]*:[0-9]+\)\Z")


class EngineError(Exception):
    """A source or a rendering that failed: why, on which line (0: unknown), and in more words for its author.

    `reason` never holds a value; `detail` may, and belongs to renderings of examples only. `at` is the number of
    the last place that a source has noted by `_at(number)`.
    """

    def __init__(self, reason: str, line: int = 0, detail: str = "", at: int = 0) -> None:
        self.reason = reason
        self.line = line
        self.detail = detail or reason
        self.at = at
        super().__init__(reason)


class _Meter(threading.local):
    """What the rendering of this thread has written and filtered so far, where it is, and for which locale."""

    written = 0
    filtered = 0
    at = 0
    locale = DEFAULT_LOCALE


class _Escaped(str):
    """Text that is HTML already."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def fuel_for(longest_repeated: int) -> int:
    """Return how many steps a source may take whose longest literal inside a loop has so many characters."""
    return min(MAX_FUEL, MAX_REPEATED // max(1, longest_repeated))


class Program:
    """One file, compiled. Programs share nothing, so each has the fuel that fits its literals."""

    def __init__(self, source: str, *, as_html: bool, longest_repeated: int) -> None:
        """Compile, or raise `EngineError`; `longest_repeated` as the source's outline has it."""
        self._source = source
        self.as_html = as_html
        self._meter = _Meter()
        self._env = minijinja.Environment(
            undefined_behavior="strict",
            fuel=fuel_for(longest_repeated),
            debug=False,  # errors would carry the variables
            pycompat=False,  # methods such as 'x'.format() allocate without limit
            auto_escape_callback=lambda _: as_html,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            finalizer=_finalizer(self._meter, as_html=as_html),
        )
        for name in set(_BUILTIN_FILTERS.split()) - ENGINE_FILTERS:
            self._env.remove_filter(name)
        for name in _BUILTIN_FUNCTIONS:
            self._env.remove_global(name)
        for name, function in OWN_FILTERS.items():
            self._env.add_filter(name, _metered(self._meter, function))
        for name, localised in LOCALE_FILTERS.items():
            self._env.add_filter(name, _by_locale(self._meter, localised))
        self._env.add_global("range", bounded_range)
        self._env.add_global("_at", _place_keeper(self._meter))
        try:
            self._env.add_template(_ONLY, source)
        except minijinja.TemplateError as error:
            raise _engine_error(error) from None

    @property
    def undeclared(self) -> set[str]:
        """What the source takes from outside."""
        return self._env.undeclared_variables_in_str(self._source)

    def render(self, context: Mapping[str, Any]) -> str:
        """Render, or raise `EngineError`."""
        meter = self._meter
        meter.written = meter.filtered = meter.at = 0
        meter.locale = context.get("locale", DEFAULT_LOCALE)
        try:
            text = self._env.render_template(_ONLY, **context)
        except minijinja.TemplateError as error:
            raise _engine_error(error, meter.at) from None
        except Refusal as refusal:
            raise EngineError(str(refusal), at=meter.at) from None
        except BaseException as error:
            # A panic of the engine is no Exception, but no reason for a worker to stop either. The error's own
            # text may hold a value.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise EngineError(f"cannot be rendered ({type(error).__name__})", at=meter.at) from None
        if len(text) * 4 > MAX_OUTPUT_BYTES and len(text.encode()) > MAX_OUTPUT_BYTES:
            raise EngineError(f"makes more than {MAX_OUTPUT_BYTES} bytes")
        return text


# What the engine calls holds the meter only. Were it to hold the program, which holds the engine, neither would
# ever be freed: Python cannot see cycles through the engine.


def _metered(meter: _Meter, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a filter stop when all filters together have worked enough: to fuel, each is one step."""

    def call(value: Any, *args: Any, **options: Any) -> Any:
        if isinstance(value, (str, list)) and len(value) > UNCOUNTED:
            meter.filtered += len(value)
            if meter.filtered > MAX_FILTERED:
                raise Refusal("takes too many steps")
        return function(value, *args, **options)

    return call


def _by_locale(meter: _Meter, function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a filter the locale of the rendering it is called in."""

    def call(value: Any, *args: Any, **options: Any) -> Any:
        meter.filtered += FORMATTED
        if meter.filtered > MAX_FILTERED:
            raise Refusal("takes too many steps")
        return function(meter.locale, value, *args, **options)

    return call


def _place_keeper(meter: _Meter) -> Callable[[int], str]:
    def keep(number: int) -> str:
        meter.at = number
        return ""

    return keep


def _finalizer(meter: _Meter, *, as_html: bool) -> Callable[[Any], Any]:
    """Make what judges each output: only text and numbers can be shown, and not too much of them.

    In HTML it also escapes what holds a slash, because the engine would escape the slash too, and click
    trackers that look for links in the source of a mail would not find them.
    """

    def show(value: Any) -> Any:
        kind = type(value)
        if kind is str:
            if len(value) > UNCOUNTED:
                meter.written += len(value)
                if meter.written > MAX_OUTPUT_BYTES:
                    raise Refusal(f"makes more than {MAX_OUTPUT_BYTES} bytes")
            return _Escaped(escape(value)) if as_html and "/" in value else NotImplemented
        if kind is int or kind is float:
            return NotImplemented
        shown = _SHOWN.get(kind, "something that is no text")
        raise Refusal(f"shows {shown}; only text and numbers can be shown")

    return show


def _engine_error(error: minijinja.TemplateError, at: int = 0) -> EngineError:
    reason = _REASONS.get(error.kind, f"cannot be rendered ({error.kind})")
    detail = "" if error.kind == "OutOfFuel" else _SAID_LAST.sub("", error.message)
    return EngineError(reason, error.line or 0, detail, at)
