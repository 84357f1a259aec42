"""The file system that something is on, as far as the vault must know it: one that the kernel makes up has no files."""

from pathlib import Path

from stanch.core.errors import Unsupported
from stanch.core.types import EndpointPath

_MADE_UP = frozenset(
    (
        "autofs",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "efivarfs",
        "fusectl",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "sysfs",
        "tracefs",
    )
)


def refuse_made_up(path: EndpointPath, descriptor: int) -> None:
    """Unsupported for what the kernel makes up while it is read."""
    name = file_system_of(descriptor)
    if name in _MADE_UP:
        raise Unsupported(
            f"{path} cannot be taken",
            got=f"something of {name}, which the kernel makes up",
            expected="a file on a disk",
        )


def file_system_of(descriptor: int) -> str:
    """The kind of file system that a descriptor is on, such as `ext4`; empty if it cannot be told. OSError."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
    number = next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
    with Path("/proc/self/mountinfo").open("rb") as mounts:
        for line in mounts:
            head, _, tail = line.partition(b" - ")
            if head.split(b" ", 1)[0].decode() == number:
                return tail.split(b" ", 1)[0].decode("ascii", "replace")
    return ""
