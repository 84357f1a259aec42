"""Files there and back, packages, accounts and autoruns: of the machine, and of images that lack something."""

import errno
import os
from pathlib import Path

import pytest

from stanch.agent import selftest_files
from stanch.agent.host.vault import TaskVault
from stanch.agent.selftest_files import accounts, autoruns, packages, vault
from stanch.agent.selftest_probe import Bench, Outcome
from stanch.core.errors import Unsupported
from tests.fakes.endpoint_state import Used


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    settings = Used(tmp_path).settings
    settings.state.mkdir(mode=0o700)
    return Bench(settings=settings, root=tmp_path / "image")


async def test_a_file_goes_and_comes_back(bench):
    """Nothing of it has changed, and nothing is left."""
    assert (await vault(bench)).state in {Outcome.OK, Outcome.LIMITED}
    assert list(bench.settings.state.iterdir()) == []


async def test_a_file_that_comes_back_otherwise_fails(bench, monkeypatch):
    """What differs is named."""
    put_back = TaskVault.put_back

    async def carelessly(self: TaskVault, returning: object) -> object:
        done = await put_back(self, returning)  # type: ignore[arg-type]
        os.chmod(done.path, 0o600)  # noqa: PTH101 - a test's own file, by the name that it is told
        return done

    monkeypatch.setattr(TaskVault, "put_back", carelessly)
    found = await vault(bench)
    assert (found.state, "mode" in found.seen) == (Outcome.FAILED, True)


async def test_a_file_system_without_attributes_is_limited(bench, monkeypatch):
    """Such as vfat: the file itself comes back all the same."""

    def none(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(selftest_files.os, "setxattr", none)
    found = await vault(bench)
    assert (found.state, "no access lists" in found.seen) == (Outcome.LIMITED, True)


async def test_without_a_state_folder_no_vault_is_tried(bench):
    """It is not made for that."""
    bench.settings.state.rmdir()
    assert (await vault(bench)).state is Outcome.SKIPPED


async def test_the_owner_of_the_shell_is_known(bench):
    """From the package database of an image: dpkg's, here."""
    shell = bench.root / "bin/sh"
    shell.parent.mkdir(parents=True)
    shell.write_text("#!")
    assert (await packages(bench)).state is Outcome.LIMITED
    info = bench.root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (info / "dash.list").write_text("/.\n/bin\n/bin/sh\n")
    (bench.root / "var/lib/dpkg/status").write_text("Package: dash\nStatus: install ok installed\nVersion: 1\n\n")
    found = await packages(bench)
    assert (found.state, "belongs to dash" in found.seen) == (Outcome.OK, True), found


async def test_accounts_can_be_read_and_locked(bench, monkeypatch):
    """With shadow and usermod; what is missing is named."""
    etc = bench.root / "etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    assert "no /etc/shadow" in (await accounts(bench)).seen
    (etc / "shadow").write_text("root:*:19000::::::\n")
    monkeypatch.setattr(selftest_files, "find", lambda name: f"/usr/sbin/{name}")
    assert (await accounts(bench)).state is Outcome.OK

    def missing(name: str) -> str:
        raise Unsupported(f"The program {name} is not installed")

    monkeypatch.setattr(selftest_files, "find", missing)
    found = await accounts(bench)
    assert (found.state, "shadow-utils" in (found.help or "")) == (Outcome.LIMITED, True)


async def test_autoruns_are_counted(bench):
    """A place that cannot be read is told."""
    cron = bench.root / "etc/cron.d"
    cron.mkdir(parents=True)
    (cron / "job").write_text("* * * * * root /bin/true\n")
    found = await autoruns(bench)
    assert (found.state, found.seen.startswith("1 autoruns")) == (Outcome.OK, True), found
    os.mkfifo(cron / "pipe")
    found = await autoruns(bench)
    assert (found.state, "FIFO" in found.seen) == (Outcome.LIMITED, True), found
