"""Murmur2 as Kafka's clients compute it, so that a key lands in the same partition whoever writes it."""

from __future__ import annotations

import struct
from functools import cache

_M = 0x5BD1E995
_U32 = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Return the 32-bit hash of `data`, in [0, 2**32).

    References:
        Austin Appleby, MurmurHash2 (2008), with the seed 0x9747b28c of Apache Kafka's
        ``org.apache.kafka.common.utils.Utils.murmur2``.
    """
    length = len(data)
    words = length >> 2
    h = 0x9747B28C ^ length
    for k in _unpacker(words)(data):
        k = k * _M & _U32
        h = (h * _M & _U32) ^ ((k ^ k >> 24) * _M & _U32)
    tail = data[words << 2 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _U32
    h = (h ^ h >> 13) * _M & _U32
    return h ^ h >> 15


@cache
def _unpacker(words: int):
    return struct.Struct(f"<{words}I").unpack_from
