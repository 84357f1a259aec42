"""Identifiers: a prefix that says what it is, then time and randomness: they sort by age and cannot be guessed."""

import secrets
from datetime import datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_CHARS, _RANDOM_CHARS = 10, 16


def new_id(prefix: str, now: datetime) -> str:
    """`ord_01k8…`: 48 bits of milliseconds, 80 random bits, in Crockford's base 32."""
    milliseconds = int(now.timestamp() * 1000)
    return f"{prefix}_{_base32(milliseconds, _TIME_CHARS)}{_base32(secrets.randbits(80), _RANDOM_CHARS)}"


def _base32(number: int, length: int) -> str:
    return "".join(_ALPHABET[number >> (5 * i) & 31] for i in reversed(range(length)))
