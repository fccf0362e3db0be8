"""The stored form of a payload: msgpack, compressed where that pays, with one leading byte saying which."""

import zlib

import msgspec

from postroom.message import Payload

COMPRESS_ABOVE = 512  # bytes; below it the header of a compressed block costs more than it saves
PLAIN, ZLIB = b"\x00", b"\x01"

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Payload)


def encode_payload(payload: Payload) -> bytes:
    """Return the bytes to store."""
    raw = _encoder.encode(payload)
    if len(raw) <= COMPRESS_ABOVE:
        return PLAIN + raw
    return ZLIB + zlib.compress(raw, 1)


def decode_payload(stored: bytes) -> Payload:
    """Return the payload; raises ValueError where the bytes are none of ours."""
    try:
        raw = zlib.decompress(stored[1:]) if stored[:1] == ZLIB else stored[1:]
        return _decoder.decode(raw)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise ValueError("the stored payload cannot be read") from error
