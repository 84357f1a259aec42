"""A harmless client on the demo's endpoint: it asks a shop on the outside, over IPv4 and IPv6, for ever.

It shows what an isolation costs and that a release gives it back. Standard library only.
"""

import argparse
import socket
import time
from contextlib import suppress
from typing import NoReturn

SHOP_PORT = 80
ASK_SECONDS = 0.1
ANSWER_SECONDS = 0.25


def ask(address: str, sequence: int) -> None:
    """One question on one connection; silence is for the shop to notice."""
    name = "client6" if ":" in address else "client4"
    with suppress(OSError), socket.create_connection((address, SHOP_PORT), ANSWER_SECONDS) as connection:
        connection.sendall(f"{name} {sequence}\n".encode())
        connection.recv(64)


def main() -> NoReturn:
    """Ask for ever."""
    parser = argparse.ArgumentParser(description="A harmless client for the demo.")
    parser.add_argument("--shop", action="append", required=True, help="address to ask, once per family")
    addresses = parser.parse_args().shop
    sequence = 0
    while True:
        sequence += 1
        for one in addresses:
            ask(one, sequence)
        time.sleep(ASK_SECONDS)


if __name__ == "__main__":
    main()
