"""Identifiers: a prefix that says what it is, then time and randomness: they sort by age and cannot be guessed."""

import secrets
from base64 import b32hexencode
from datetime import datetime


def new_id(prefix: str, now: datetime) -> str:
    """`ord_034h…`: 48 bits of milliseconds and 80 random bits, in base32hex, whose alphabet is in order."""
    milliseconds = int(now.timestamp() * 1000).to_bytes(6, "big")
    return f"{prefix}_{b32hexencode(milliseconds + secrets.token_bytes(10)).decode().rstrip('=').lower()}"
