"""From a rendered mail to the bytes of a message (RFC 5322, MIME), exactly and equal on every attempt."""

from postroom.compose.check import ComposeError
from postroom.compose.message import Composed, Wire, compose

__all__ = ["ComposeError", "Composed", "Wire", "compose"]
