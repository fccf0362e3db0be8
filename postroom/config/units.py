"""Durations and rates as they are written in the configuration: `10s`, `1.5h`, `50/s`."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PER = {"s": 1.0, "min": 60.0, "h": 3600.0}


def seconds(duration: str) -> float:
    """Return a duration in seconds; its form was checked when the configuration was decoded."""
    number = duration.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(number) * _SECONDS[duration[len(number) :]]


def milliseconds(duration: str) -> int:
    """Return a duration in whole milliseconds."""
    return round(seconds(duration) * 1000)


def per_second(rate: str) -> float:
    """Return a rate in items per second."""
    count, _, unit = rate.partition("/")
    return int(count) / _PER[unit]
