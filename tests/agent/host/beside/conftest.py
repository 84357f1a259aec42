"""The programs that products write their rules with: without them the tests say what is missing."""

import shutil
import subprocess

import pytest

PROGRAMS = (
    "iptables-nft-restore",
    "ip6tables-nft-restore",
    "iptables-legacy-restore",
    "ip6tables-legacy-restore",
    "ipset",
)


def missing() -> str | None:
    """What is missing for these tests, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)}: not installed"
    tried = subprocess.run(
        ["unshare", "--net", "iptables-legacy", "-w", "5", "-L", "-n"], capture_output=True, text=True, check=False
    )
    return f"iptables-legacy: {tried.stderr.strip()}" if tried.returncode else None


@pytest.fixture(scope="session", autouse=True)
def _products_can_run() -> None:
    """Skip with the reason."""
    reason = missing()
    if reason:
        pytest.skip(reason)
