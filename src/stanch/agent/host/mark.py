"""The mark on the agent's own sockets: the isolation leaves its proxies and resolvers open to them alone."""

import socket

AGENT_MARK = 0x10B5
"""SO_MARK. Of the bits below, because those of others (0x0f00, 0x4000, 0x8000, all above) mean routes and masks."""

MARK_BITS = 0x30FF
"""The bits that count: others may add their own on a packet's way."""


def mark(sock: socket.socket) -> None:
    """Mark a socket as one of the agent's own; without CAP_NET_ADMIN it stays as it is."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, AGENT_MARK)
    except PermissionError:
        return
