"""Do files come back from a vault as they were? Can packages, accounts and autoruns of the machine be read?"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from stanch.agent.host.account_files import passwd_entries, read_file, shadow_entry
from stanch.agent.host.autorun_tree import Tree
from stanch.agent.host.autoruns import MOST, readers
from stanch.agent.host.packages import Packages
from stanch.agent.host.run import find
from stanch.agent.host.vault import LinuxVault, TaskVault
from stanch.agent.host.vault_parts import Orderer, path_of
from stanch.agent.selftest_probe import Bench, Finding, Probe, failed, limited, ok, skipped
from stanch.core.errors import StanchError
from stanch.core.types import seconds
from stanch.core.vault import Returning, Taking, Why, item_id

_CONTENT = b"A file of Stanch's self-test.\n" * 100
_ATTRIBUTE = "user.stanch"
_ACL = "system.posix_acl_access"
_ACL_BYTES = bytes.fromhex(
    # Version 2; then tag, rights, id: owner rw, user 65534 r, group r, mask r, others none.
    "0200000001000600ffffffff02000400feff000004000400ffffffff10000400ffffffff20000000ffffffff"
)
_ROOM = 1_073_741_824


# --- vault -----------------------------------------------------------------------------------------------------------


async def vault(bench: Bench) -> Finding:
    """Does a file come back from a vault with its bytes and all that belongs to it?"""
    if not bench.settings.state.is_dir():
        return skipped(f"there is no {bench.settings.state}", "It is tried in the state folder: enrol first.")
    with bench.scratch() as scratch:
        lacks = await bench.in_thread(lambda: _made(scratch / "file"))
        return await _there_and_back(scratch, lacks)


def _made(file: Path) -> list[str]:
    """Make a file with everything that a file may have; what this file system does not know."""
    file.write_bytes(_CONTENT)
    file.chmod(0o751)
    os.utime(file, ns=(1_700_000_000_123_456_789, 1_700_000_001_987_654_321))
    lacks = []
    for name, value in ((_ATTRIBUTE, b"stanch"), (_ACL, _ACL_BYTES)):
        try:
            os.setxattr(file, name, value)
        except OSError as error:
            lacks.append(f"{'access lists' if name == _ACL else 'attributes'} ({error.strerror})")
    return lacks


async def _there_and_back(scratch: Path, lacks: list[str]) -> Finding:
    file, id_ = scratch / "file", item_id("selftest", 1)
    before = _portrait(file)
    taker = _vault(scratch)
    await taker.take(Taking(id=id_, path=path_of(file), why=Why.QUARANTINE))
    if file.exists() or await taker.find(id_) is None:
        return failed("a file was taken, and is not in the vault alone", "Please report it.")
    await taker.put_back(Returning(id=id_))
    differs = sorted(name for name, value in _portrait(file).items() if before[name] != value)
    if differs:
        return failed(f"a file came back with another {', '.join(differs)}", "Is it a network or foreign file system?")
    seen = "a file was taken, encrypted, found and put back; nothing of it has changed"
    if lacks:
        return limited(f"{seen}; this file system has no {', no '.join(lacks)}", "Only files that have them need them.")
    return ok(seen)


def _vault(scratch: Path) -> TaskVault:
    async def tell(_kind: str, _detail: Mapping[str, object]) -> None:
        """Nobody has to hear of it."""

    linux = LinuxVault(
        scratch / "vault",
        key=scratch / "vault.key",
        evidence_key=lambda: "",
        limit=lambda: _ROOM,
        why_protected=lambda _path, _status: None,
        clock=lambda: None,
        tell=tell,
    )
    return TaskVault(linux, Orderer(order="selftest", by="selftest"))


def _portrait(file: Path) -> Mapping[str, object]:
    status = file.stat()
    return {
        "content": file.read_bytes(),
        "mode": stat.S_IMODE(status.st_mode),
        "owner": (status.st_uid, status.st_gid),
        "time": status.st_mtime_ns,
        "attributes": {name: os.getxattr(file, name) for name in os.listxattr(file)},
    }


# --- the machine's own files -----------------------------------------------------------------------------------------


async def packages(bench: Bench) -> Finding:
    """Is it known which package a file belongs to?"""
    return await bench.in_thread(lambda: _packages(bench.root))


def _packages(root: Path) -> Finding:
    there = Packages(root)
    shell = path_of(Path(os.path.realpath(root / "bin/sh")))
    if root != Path("/"):
        shell = path_of(Path("/") / Path(os.fsdecode(shell.raw)).relative_to(os.path.realpath(root)))
    owner = there.owners([shell]).get(shell)
    if owner is None:
        hint = "dpkg, rpm (program rpm) and apk are known. Without one, nobody can tell which files are changed."
        return limited(f"no package database knows {shell}", hint)
    differs = there.differs(shell)
    told = {True: ", and it was changed", False: ", unchanged", None: ", which keeps no checksum of it"}[differs]
    return ok(f"{shell} belongs to {owner}{told}")


async def accounts(bench: Bench) -> Finding:
    """Can accounts be read, and locked?"""
    return await bench.in_thread(lambda: _accounts(bench.root))


def _accounts(root: Path) -> Finding:
    entries = list(passwd_entries(read_file(root / "etc/passwd")))
    lacks, hints = [], []
    try:
        find("usermod")
    except StanchError:
        lacks.append("no program usermod")
        hints.append("Install passwd (Debian) or shadow-utils (RHEL).")
    try:
        shadow = read_file(root / "etc/shadow")
        if not shadow:
            lacks.append("no /etc/shadow")
        elif entries:
            shadow_entry(shadow, entries[0].name)
    except StanchError as error:
        lacks.append(f"{error.message} ({error.got})")
        hints.append("Only root may read it.")
    seen = f"{len(entries)} accounts in /etc/passwd"
    if lacks:
        return limited(f"{seen}; accounts cannot be locked: {', '.join(lacks)}", " ".join(hints) or None)
    return ok(f"{seen}; shadow readable, usermod there")


async def autoruns(bench: Bench) -> Finding:
    """In how many places can be read what starts by itself?"""
    return await bench.in_thread(lambda: _autoruns(bench.root))


def _autoruns(root: Path) -> Finding:
    tree, places, count = Tree(root), set[str](), 0
    try:
        for reader in readers():
            places |= set(reader.places)
            for _one in zip(reader.read(tree, frozenset(reader.places)), range(MOST), strict=False):
                count += 1
        unread = tuple(tree.unread)
    finally:
        tree.close()
    seen = f"{count} autoruns in {len(places)} kinds of places"
    if unread:
        first = "; ".join(f"{one.path}: {one.why}" for one in unread[:3])
        return limited(f"{seen}; {len(unread)} files could not be read: {first}"[:2000], "Root reads more of them.")
    return ok(seen)


FILE_PROBES = (
    Probe(name="vault", look=vault, within=seconds(30)),
    Probe(name="packages", look=packages, within=seconds(20)),
    Probe(name="accounts", look=accounts, within=seconds(10)),
    Probe(name="autoruns", look=autoruns, within=seconds(30)),
)
