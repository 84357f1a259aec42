"""Is everything found that was planted, of every place, and nothing else; and does every look end?"""

import asyncio
import errno
import threading
from pathlib import Path

import pytest

from stanch.agent.host import autoruns as module
from stanch.agent.host import path_calls
from stanch.agent.host.autorun_tree import Tree
from stanch.agent.host.autoruns import LinuxAutoruns, Looking, readers
from stanch.agent.host.packages import Packages
from stanch.core.autoruns import Autorun, Place, Unread, disabled_line
from stanch.core.errors import ActionFailed, Cancelled, ForbiddenHere
from tests.agent.host.autorun_root import new_root

FILES = {
    Place.SYSTEMD_UNIT: ("/etc/systemd/system/evil.service", "[Service]\nExecStart=/opt/x\n"),
    Place.SYSTEMD_TIMER: ("/etc/systemd/system/evil.timer", "[Timer]\nOnBootSec=1\n"),
    Place.SYSTEMD_GENERATOR: ("/etc/systemd/system-generators/evil", "#!/bin/sh\n"),
    Place.CRON: ("/etc/cron.d/evil", "* * * * * root /opt/x\n"),
    Place.AT: ("/var/spool/cron/atjobs/a0000101bd4f30", "/opt/x\n"),
    Place.INIT: ("/etc/init.d/evil", "#!/bin/sh\n"),
    Place.RC: ("/etc/rc.local", "/opt/x\n"),
    Place.SHELL: ("/home/alice/.bashrc", "/opt/x\n"),
    Place.DESKTOP: ("/etc/xdg/autostart/evil.desktop", "[Desktop Entry]\nExec=/opt/x\n"),
    Place.PRELOAD: ("/etc/ld.so.preload", "/opt/x\n"),
    Place.PAM: ("/etc/pam.d/sshd", "auth optional pam_exec.so /opt/x\n"),
    Place.UDEV: ("/etc/udev/rules.d/evil.rules", 'RUN+="/opt/x"\n'),
    Place.MODULES: ("/etc/modprobe.d/evil.conf", "install usb /opt/x\n"),
    Place.SSH_KEY: ("/root/.ssh/authorized_keys", 'command="/opt/x" ssh-rsa AAAA evil\n'),
    Place.SUDO: ("/etc/sudoers", "alice ALL=(ALL) NOPASSWD: /opt/x\n"),
    Place.KERNEL: ("/etc/default/grub", "GRUB_CMDLINE_LINUX=init=/opt/x\n"),
    Place.OTHER: ("/etc/update-motd.d/evil", "#!/bin/sh\n"),
}
"""One of each."""

DECOYS = {
    "/etc/cron.d/README": "this is no job\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
    "/etc/systemd/system/notes.txt": "ExecStart=/opt/x\n",
    "/etc/ssh/sshd_config": "Port 22\n",
    "/etc/environment": "PATH=/bin\n",
    "/etc/udev/rules.d/names.rules": 'KERNEL=="x", NAME="y"\n',
    "/etc/modprobe.d/blacklist.conf": "blacklist pcspkr\n",
    "/opt/x": "#!/bin/sh\n",
    "/usr/lib/python3/dist-packages/x.pth": "/opt/lib\n",
}


@pytest.fixture
def root(tmp_path):
    """A machine on which one thing of each kind was planted."""
    root = new_root(tmp_path / "machine")
    for path, text in [*FILES.values(), *DECOYS.items()]:
        root.write(path, text, mode=0o755)
    return root


DPKG = Path("/var/lib/dpkg/info").is_dir()


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def listed(root, *places, packages=None):
    autoruns = LinuxAutoruns(root=root.folder, **({"packages": packages} if packages else {}))
    batches = [batch async for batch in autoruns.list(places or tuple(Place))]
    found = [one for batch in batches for one in batch]
    return [one for one in found if isinstance(one, Autorun)], [one for one in found if isinstance(one, Unread)]


def test_the_plants_are_of_every_place():
    """A new place needs one."""
    assert set(FILES) == set(Place)


async def test_what_was_planted_is_found_and_nothing_else(root):
    """One of each place, each with another id, nothing unread."""
    found, unread = await listed(root)
    assert {(one.place, one.path) for one in found} == {(place, path) for place, (path, _text) in FILES.items()}
    assert len(found) == len(FILES) == len({one.id for one in found})
    assert unread == []


async def test_the_program_is_seen_behind_each_kind_of_line(root):
    """Where a line names one."""
    found, _unread = await listed(root)
    without = {Place.SYSTEMD_GENERATOR, Place.INIT, Place.SHELL, Place.OTHER}
    assert {one.place for one in found if one.program == "/opt/x"} == set(Place) - without


@pytest.mark.parametrize("place", Place)
async def test_only_the_places_that_were_asked_for_are_told(root, place):
    """Whatever else its reader can read."""
    found, _unread = await listed(root, place)
    assert [(one.place, one.path) for one in found] == [(place, FILES[place][0])]


async def test_each_is_found_by_its_id(root):
    """As it is in the list; another id finds nothing."""
    autoruns = LinuxAutoruns(root=root.folder)
    found, _unread = await listed(root)
    for one in found:
        assert await autoruns.find(one.id) == one
    assert await autoruns.find("0" * 16) is None


async def test_ids_stay_when_other_lines_come_and_when_it_is_disabled(root):
    """They are of the text, not of the number of the line."""
    before = (await listed(root, Place.CRON))[0][0]
    line = FILES[Place.CRON][1].strip()
    root.write("/etc/cron.d/evil", "\n# comment\n\n" + disabled_line("tsk_1", line) + "\n")
    after = (await listed(root, Place.CRON))[0][0]
    assert (before.id, before.line, before.enabled) == (after.id, 1, True)
    assert (after.line, after.enabled, after.disabled_by) == (4, False, "tsk_1")


async def test_the_same_line_twice_is_one(root):
    """It has one id, and is disabled at once."""
    root.write("/etc/cron.d/evil", FILES[Place.CRON][1] * 3)
    found, _unread = await listed(root, Place.CRON)
    assert [one.line for one in found] == [1]


async def test_packages_are_asked_through_what_was_handed_over(root):
    """Anew for each list."""
    made = []

    class Known:
        def owners(self, paths):
            return {one: "pkg" for one in paths if one == "/etc/cron.d/evil"}

        def differs_many(self, paths):
            return dict.fromkeys(paths, True)

    def packages():
        made.append(1)
        return Known()

    found, _unread = await listed(root, Place.CRON, packages=packages)
    assert (found[0].package, found[0].differs, len(made)) == ("pkg", True, 1)


async def test_an_older_kernel_gives_the_same_list(root, monkeypatch):
    """Without openat2, every path is walked step by step."""
    root.link("/etc/cron.d/out", "/../../../../../../etc/hosts")
    root.link("/etc/cron.d/abs", "/etc/crontab.real")
    root.write("/etc/crontab.real", "@daily root /opt/y\n")
    whole = await listed(root)

    def refuse(*_arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(path_calls, "_call", refuse)
    assert await listed(root) == whole
    assert "/etc/cron.d/abs" in [one.path for one in whole[0]]


async def test_what_the_owner_forbids_is_not_read(root):
    """By where it really is: a link is no way around; it is told as unread."""

    def forbid(path):
        if path.startswith("/opt/secret"):
            raise ForbiddenHere("The owner of this machine forbids this path", got=path)

    root.at("/etc/cron.d/evil").rename(root.write("/opt/secret/job"))
    root.link("/etc/cron.d/evil", "/opt/secret/job")
    root.program("/opt/secret/x")
    root.write("/etc/cron.d/more", "* * * * * root /opt/secret/x\n")
    autoruns = LinuxAutoruns(root=root.folder, forbidden=forbid)
    found = [one async for batch in autoruns.list([Place.CRON]) for one in batch]
    assert [(one.program, one.program_sha256) for one in found if isinstance(one, Autorun)] == [("/opt/secret/x", None)]
    assert {one.path for one in found if isinstance(one, Unread)} == {"/etc/cron.d/evil", "/opt/secret/x"}


async def test_batches_are_bounded_and_so_is_each_place(root, monkeypatch):
    """What is beyond is told as unread."""
    monkeypatch.setattr(module, "BATCH", 3)
    monkeypatch.setattr(module, "MOST", 5)
    root.write("/etc/cron.d/many", "".join(f"* * * * * root /opt/{n}\n" for n in range(20)))
    autoruns = LinuxAutoruns(root=root.folder)
    batches = [batch async for batch in autoruns.list([Place.CRON])]
    assert max(len(batch) for batch in batches) <= 4
    found = [one for batch in batches for one in batch]
    assert len([one for one in found if isinstance(one, Autorun)]) == 5
    assert [one.why for one in found if isinstance(one, Unread)] == ["only the first 5 of cron are told"]


async def test_a_look_that_is_left_lets_go_of_everything(root, monkeypatch):
    """Nothing stays open, though not all was looked at."""
    monkeypatch.setattr(module, "BATCH", 1)
    before = descriptors()
    found = LinuxAutoruns(root=root.folder).list(tuple(Place))
    assert len(await anext(found)) == 1
    await found.aclose()
    assert descriptors() == before


async def test_a_look_that_is_cancelled_ends_in_its_thread(root, monkeypatch):
    """At the next thing that it finds; only then the root is let go of."""
    looking, reached, go_on = (
        Looking(root.folder, module.NoPackages, tuple(Place)),
        threading.Event(),
        threading.Event(),
    )
    closed = []
    monkeypatch.setattr(Tree, "close", lambda _tree: closed.append(1))

    def step():
        reached.set()
        assert go_on.wait(30)
        return looking.next()

    running = asyncio.create_task(looking.on(step))
    await asyncio.to_thread(reached.wait, 30)
    looking.stop()
    assert not closed
    go_on.set()
    with pytest.raises(Cancelled):
        await running
    assert closed
    with pytest.raises(Cancelled):
        await looking.on(looking.next)


async def test_a_root_that_is_not_there_is_an_error(tmp_path):
    """Of the kind that people are told."""
    with pytest.raises(ActionFailed):
        await anext(LinuxAutoruns(root=tmp_path / "none").list([Place.CRON]))


async def test_every_place_has_one_reader(root):
    """And a hostile machine, with a pipe in every place, is read to its end."""
    assert {place for one in readers() for place in one.places} == set(Place)
    for path, _text in FILES.values():
        root.at(path).unlink()
        root.fifo(path)
    found, unread = await listed(root)
    assert {one.path for one in unread} >= {
        FILES[place][0] for place in (Place.CRON, Place.SUDO, Place.SHELL, Place.PAM)
    }
    assert not [one for one in found if one.place in {Place.CRON, Place.SUDO, Place.PAM}]


@pytest.mark.slow
async def test_this_machine_is_read_to_its_end():
    """What packages brought is known to be theirs, where the machine has a package database."""
    autoruns = LinuxAutoruns(packages=Packages)
    found = [one async for batch in autoruns.list(tuple(Place)) for one in batch if isinstance(one, Autorun)]
    units = [one for one in found if one.place is Place.SYSTEMD_UNIT and one.path.startswith("/usr/lib/")]
    assert not units or not DPKG or [one for one in units if one.package]
    assert (await autoruns.find(found[0].id)).id == found[0].id
