"""Custody in memory."""

from pyrage import x25519

from stanch.server.custody import KeyFileCustody


def custody() -> KeyFileCustody:
    """Custody with a new key that is in no file."""
    identity = x25519.Identity.generate()
    return KeyFileCustody(str(identity.to_public()), identity)
