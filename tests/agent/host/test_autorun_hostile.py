"""What an attacker does to be overlooked, to be protected, or to have a responder harm what is innocent."""

import asyncio
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from stanch.agent.host import autorun_tree
from stanch.agent.host.autorun_changes import AutorunChanges
from stanch.agent.host.autorun_describing import NoPackages
from stanch.agent.host.autoruns import LinuxAutoruns
from stanch.core.autoruns import Autorun, Place, Unread, disabled_line
from stanch.core.errors import Conflict
from stanch.core.types import EndpointPath
from tests.agent.host.autorun_root import Root, new_root

ALICE = 1000


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A machine with a user called alice."""
    return new_root(tmp_path / "machine")


def found(root: Root, *places: Place) -> tuple[list[Autorun], list[Unread]]:
    """What starts there, and what could not be looked at."""

    async def all_of_it() -> list[Autorun | Unread]:
        return [one async for batch in LinuxAutoruns(root=root.folder).list(places or tuple(Place)) for one in batch]

    told = asyncio.run(all_of_it())
    return [one for one in told if isinstance(one, Autorun)], [one for one in told if isinstance(one, Unread)]


def why_not(root: Root, one: Autorun) -> str | None:
    """Why it cannot be disabled."""
    return asyncio.run(AutorunChanges(root=root.folder).why_not(one))


@pytest.mark.parametrize("mark_first", [True, False])
def test_a_mark_does_not_hide_the_same_line_beside_it(root: Root, *, mark_first: bool) -> None:
    """Malware that writes its line again, or forges a mark of it, is told as what starts, and can be disabled."""
    line = "* * * * * root /opt/x"
    both = [disabled_line("tsk_1", line), line]
    root.write("/etc/cron.d/x", "\n".join(both if mark_first else both[::-1]) + "\n")
    ones, _unread = found(root, Place.CRON)
    assert [(one.enabled, one.disabled_by) for one in ones] == [(True, "")]
    asyncio.run(AutorunChanges(root=root.folder).way(ones[0]))


def test_a_file_with_the_name_of_a_unit_is_no_alias(root: Root) -> None:
    """A link to a file elsewhere that is called after another unit is a unit of its own, and told."""
    root.write("/usr/lib/systemd/system/ssh.service", "[Service]\nExecStart=/usr/sbin/sshd\n")
    root.write("/opt/x/ssh.service", "[Service]\nExecStart=/opt/x/y\n")
    root.link("/etc/systemd/system/evil.service", "/opt/x/ssh.service")
    root.link("/etc/systemd/system/sshd.service", "/usr/lib/systemd/system/ssh.service")
    names = {one.name for one in found(root, Place.SYSTEMD_UNIT)[0]}
    assert names == {"ssh.service", "evil.service"}


@pytest.mark.root
@pytest.mark.parametrize(
    ("link", "target", "file", "place"),
    [
        (".ssh", "/root/.ssh", "/root/.ssh/authorized_keys", Place.SSH_KEY),
        (".config/autostart-scripts", "/usr/bin", "/usr/bin/sudo", Place.DESKTOP),
        (".config/systemd/user", "/usr/lib/systemd/system", "/usr/lib/systemd/system/ssh.service", Place.SYSTEMD_UNIT),
    ],
)
def test_a_link_in_a_home_does_not_lend_what_is_innocent(
    root: Root, link: str, target: str, file: str, place: Place
) -> None:
    """What a user shows as theirs by a link to a folder of root is not disabled under that name."""
    root.write(file, "ssh-rsa AAAA good\n" if place is Place.SSH_KEY else "[Service]\nExecStart=/x\n", mode=0o755)
    root.link(f"/home/alice/{link}", target)
    os.chown(root.at("/home/alice"), ALICE, ALICE)
    borrowed = [one for one in found(root, place)[0] if one.path.startswith("/home/alice/")]
    assert borrowed
    for one in borrowed:
        with pytest.raises(Conflict, match="not of the same owner"):
            asyncio.run(AutorunChanges(root=root.folder).way(one))


@pytest.mark.root
def test_a_link_of_a_home_to_what_is_of_its_owner_is_fine(root: Root) -> None:
    """People keep their settings elsewhere, and link them: these can be disabled."""
    file = root.write("/home/alice/dots/ssh/authorized_keys", "ssh-rsa AAAA evil\n")
    root.link("/home/alice/.ssh", "dots/ssh")
    for one in (root.at("/home/alice"), file.parent.parent, file.parent, file):
        os.chown(one, ALICE, ALICE)
    (one,) = found(root, Place.SSH_KEY)[0]
    way = asyncio.run(AutorunChanges(root=root.folder).way(one))
    assert way.path == "/home/alice/dots/ssh/authorized_keys"


def test_a_hostile_home_does_not_keep_the_rest_from_being_read(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home with folders without end costs no more than its share, which is told; what comes after it is read."""
    monkeypatch.setattr(autorun_tree, "MAX_OF_HOME", 2000)
    for n in range(200):
        root.write(f"/home/alice/many/{n}.pth", "import x\n")
    for n in range(50):
        root.link(f"/home/alice/.local/lib/python{n}/site-packages", "/home/alice/many")
    root.write("/etc/binfmt.d/x.conf", ":x:M::x::/opt/x:\n")
    ones, unread = found(root, Place.OTHER)
    assert [one.path for one in ones if one.path.startswith("/etc/")] == ["/etc/binfmt.d/x.conf"]
    assert 0 < len([one for one in ones if one.path.startswith("/home/")]) < 200
    assert [(one.path, "too much" in one.why) for one in unread] == [("/home/alice", True)]


@pytest.mark.root
def test_what_a_user_names_is_not_hashed_without_end(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files without content cost a user nothing: their hashes are taken up to a bound, and that is told."""
    monkeypatch.setattr(autorun_tree, "HASHED_OF_USER", 1000)
    for n in range(3):
        os.chown(root.write(f"/home/alice/.profile.d/{n}", b"#" * 400 + b"%d" % n), ALICE, ALICE)
    ones, unread = found(root, Place.SHELL)
    assert [one.sha256 is None for one in ones] == [False, False, True]
    assert len(unread) == 1


@pytest.mark.parametrize(
    ("path", "place", "fields"),
    [
        ("/usr/lib/systemd/system-generators/systemd-fstab-generator", Place.SYSTEMD_GENERATOR, {}),
        ("/etc/init.d/rcS", Place.RC, {}),
        ("/etc/init.d/networking", Place.INIT, {"package": "ifupdown"}),
        ("/usr/lib/udev/rules.d/69-lvm.rules", Place.UDEV, {"line": 3, "package": "lvm2", "differs": False}),
        ("/etc/udev/rules.d/90-stanch-isolation.rules", Place.UDEV, {"line": 3}),
        ("/etc/systemd/system/stanch-isolation-device@.service", Place.SYSTEMD_UNIT, {}),
    ],
)
def test_what_boots_the_machine_stays(root: Root, path: str, place: Place, fields: dict[str, object]) -> None:
    """Generators of file systems, scripts and rules of the boot, and Stanch's own: refused, with the reason."""
    assert why_not(root, autorun(path, place, **fields))


@pytest.mark.parametrize(
    ("path", "place", "fields"),
    [
        ("/etc/systemd/system/stanch-isolation-device@evil.service", Place.SYSTEMD_UNIT, {}),
        ("/home/alice/.config/systemd/user/stanch-agent.service", Place.SYSTEMD_UNIT, {}),
        ("/etc/systemd/system-generators/systemd-fstab-generator", Place.SYSTEMD_GENERATOR, {}),
        ("/etc/init.d/networking-helper", Place.INIT, {}),
        ("/etc/pam.d/sshd", Place.PAM, {"line": 1, "command": "auth sufficient pam_permit.so"}),
    ],
)
def test_a_borrowed_name_protects_nothing(root: Root, path: str, place: Place, fields: dict[str, object]) -> None:
    """Malware that is called like a part of the machine or of Stanch, and the back door of PAM, can be disabled."""
    assert why_not(root, autorun(path, place, **fields)) is None


def test_inittab_keeps_what_boots(root: Root) -> None:
    """Of what is read from the file, the line that sets up the machine is refused; any other is not."""
    root.write("/etc/inittab", "si::sysinit:/etc/init.d/rcS\nx:2345:respawn:/opt/x\n")
    assert [why_not(root, one) is None for one in found(root, Place.INIT)[0]] == [False, True]


def autorun(path: str, place: Place, **fields: object) -> Autorun:
    """Something that starts by itself."""
    told = {"id": "0" * 16, "place": place, "name": path.rpartition("/")[2], "path": EndpointPath(path)}
    return Autorun.model_validate(told | fields)


class Databases(NoPackages):
    """Knows systemd itself, and nothing else."""

    def owners(self, paths: Collection[EndpointPath]) -> Mapping[EndpointPath, str]:
        return {one: "systemd" for one in paths if one.endswith("/systemd/systemd")}


@pytest.mark.parametrize(("packages", "kept"), [(NoPackages, True), (Databases, False)])
def test_malware_among_the_units_of_packages(root: Root, packages: type[NoPackages], *, kept: bool) -> None:
    """A unit called after systemd in /usr/lib is kept only where no database could tell that no package brought it."""
    one = autorun("/usr/lib/systemd/system/systemd-worker.service", Place.SYSTEMD_UNIT)
    why = asyncio.run(LinuxAutoruns(root=root.folder, packages=packages).why_not(one))
    assert (why is not None) is kept
