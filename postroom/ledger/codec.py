"""The stored form of a payload: msgpack, compressed where that pays, with one leading byte saying which."""

import zlib

import msgspec
from msgspec import Struct

from postroom.message import Payload

# Bytes. Compressing less takes a tenth of what accepting costs, and saves a tenth of what a waiting message takes
# of Redis's memory.
COMPRESS_ABOVE = 1024
# Up to 4 KB a window of 4 KB sees everything, so the bytes are the same; its state is 32 KB instead of 260, which
# would push what accepting works with out of the processor's caches each time.
# Level 3 takes no longer here than 1, and comes out below a step of Redis's allocator more often.
SMALL, SMALL_WINDOW, SMALL_MEMORY, SMALL_LEVEL = 4096, 12, 5, 3
PLAIN, ZLIB = b"\x00", b"\x01"


class Head(Struct, frozen=True):
    """Of a payload, where it came from."""

    request_id: str = ""
    traceparent: str = ""
    accept_us: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Payload)
_head_decoder = msgspec.msgpack.Decoder(Head)


def encode_payload(payload: Payload) -> bytes:
    """Return the bytes to store."""
    raw = _encoder.encode(payload)
    if len(raw) <= COMPRESS_ABOVE:
        return PLAIN + raw
    if len(raw) > SMALL:
        return ZLIB + zlib.compress(raw, 1)
    squeeze = zlib.compressobj(SMALL_LEVEL, zlib.DEFLATED, SMALL_WINDOW, SMALL_MEMORY)
    return ZLIB + squeeze.compress(raw) + squeeze.flush()


def decode_payload(stored: bytes) -> Payload:
    """Return the payload; raises ValueError where the bytes are none of ours."""
    try:
        return _decoder.decode(_unpack(stored))
    except (zlib.error, msgspec.MsgspecError) as error:
        raise ValueError("the stored payload cannot be read") from error


def decode_head(stored: bytes) -> Head:
    """Return where a payload came from; nothing of it where the bytes are dropped, or none of ours."""
    try:
        return _head_decoder.decode(_unpack(stored)) if stored else Head()
    except (zlib.error, msgspec.MsgspecError):
        return Head()


def _unpack(stored: bytes) -> bytes:
    return zlib.decompress(stored[1:]) if stored[:1] == ZLIB else stored[1:]
