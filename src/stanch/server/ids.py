"""Identifiers: a prefix that says what it is, then time and randomness: they sort by age and cannot be guessed."""

import secrets
from datetime import datetime


def new_id(prefix: str, now: datetime) -> str:
    """`ord_019ab…`: 48 bits of milliseconds and 80 random bits, in hexadecimal."""
    return f"{prefix}_{int(now.timestamp() * 1000):012x}{secrets.token_hex(10)}"
