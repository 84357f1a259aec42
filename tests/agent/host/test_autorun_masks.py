"""Where links to /dev/null go, and what is left alone."""

import pytest

from stanch.agent.host.autorun_masks import is_of_system, mask_of, packaged_twins, why_needed, why_untouchable
from stanch.core.autoruns import Autorun, Place
from stanch.core.types import EndpointPath

ID = "0" * 16


def autorun(path: str, name: str = "", place: Place = Place.SYSTEMD_UNIT, **fields: object) -> Autorun:
    """Something that starts by itself."""
    name = name or path.rpartition("/")[2]
    return Autorun.model_validate({"id": ID, "place": place, "name": name, "path": EndpointPath(path), **fields})


@pytest.mark.parametrize(
    ("path", "name", "mask"),
    [
        ("/usr/lib/systemd/system/cups.service", "", "/etc/systemd/system/cups.service"),
        ("/lib/systemd/system/cups.service", "", "/etc/systemd/system/cups.service"),
        ("/usr/lib/systemd/system/a@.service", "a@x.service", "/etc/systemd/system/a@x.service"),
        ("/usr/lib/systemd/user/p.service", "p.service (all users)", "/etc/systemd/user/p.service"),
        ("/etc/systemd/system/evil.service", "", "/etc/systemd/system/evil.service"),
        ("/etc/systemd/system/multi-user.target.wants/x.service", "", "/etc/systemd/system/x.service"),
        ("/opt/x/evil.service", "", "/etc/systemd/system/evil.service"),
        ("/home/a/.config/systemd/user/x.timer", "x.timer (a)", "/home/a/.config/systemd/user/x.timer"),
        ("/home/a/.local/share/systemd/user/x.service", "", "/home/a/.config/systemd/user/x.service"),
        ("/usr/lib/systemd/system/a.service.d/b.conf", "a.service: b.conf", "/etc/systemd/system/a.service.d/b.conf"),
        ("/etc/systemd/system/a.service.d/b.conf", "a.service: b.conf", None),
        ("/etc/systemd/system.control/a.service", "", None),
    ],
)
def test_a_unit_is_masked_where_its_manager_looks_first(path: str, name: str, mask: str | None) -> None:
    """The link is in the folder that counts before the one of the unit; drop-ins of /etc have no such folder."""
    assert mask_of(autorun(path, name)) == mask


@pytest.mark.parametrize(
    ("path", "place", "mask"),
    [
        ("/usr/lib/udev/rules.d/99-x.rules", Place.UDEV, "/etc/udev/rules.d/99-x.rules"),
        ("/etc/udev/rules.d/99-x.rules", Place.UDEV, None),
        ("/usr/lib/modules-load.d/x.conf", Place.MODULES, "/etc/modules-load.d/x.conf"),
        (
            "/usr/lib/systemd/system-generators/x",
            Place.SYSTEMD_GENERATOR,
            "/etc/systemd/system-generators/x",
        ),
        ("/usr/lib/systemd/system-shutdown/x", Place.SYSTEMD_GENERATOR, None),
        ("/etc/cron.d/x", Place.CRON, None),
    ],
)
def test_what_else_knows_masks(path: str, place: Place, mask: str | None) -> None:
    """Rules, generators and lists of modules that a package brought are masked by their name in /etc."""
    assert mask_of(autorun(path, place=place)) == mask


def test_a_line_is_never_masked() -> None:
    """A line stands for itself: the rest of its file goes on."""
    assert mask_of(autorun("/usr/lib/udev/rules.d/x.rules", place=Place.UDEV, line=3)) is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/lib/systemd/system/systemd-logind.service", ""),
        ("/usr/lib/systemd/system/dbus.socket", ""),
        ("/usr/lib/systemd/system/getty@.service", "getty@tty1.service"),
        ("/usr/lib/systemd/system/NetworkManager.service", ""),
        ("/usr/lib/systemd/system/tmp.mount", ""),
        ("/usr/lib/systemd/system/basic.target", ""),
        ("/etc/systemd/system/stanch-agent.service", ""),
    ],
)
def test_the_machine_and_stanch_go_on(path: str, name: str) -> None:
    """What the machine needs to start, the way in, and Stanch itself are not disabled."""
    assert why_needed(autorun(path, name)) is not None


@pytest.mark.parametrize(
    "path",
    [
        "/etc/systemd/system/systemd-worker.service",
        "/usr/lib/systemd/system/cups.service",
        "/usr/lib/systemd/system/systemd-logind.service.d/evil.conf",
    ],
)
def test_a_name_alone_protects_nobody(path: str) -> None:
    """Malware that calls itself after systemd, and drop-ins of its units, can be disabled."""
    assert why_needed(autorun(path)) is None


@pytest.mark.parametrize(
    ("path", "place", "fields"),
    [
        ("/proc/cmdline", Place.KERNEL, {}),
        ("/run/systemd/transient/x.service", Place.SYSTEMD_UNIT, {}),
        ("/run/systemd/generator.late/x.service", Place.SYSTEMD_UNIT, {}),
        ("/etc/pam.d/sshd", Place.PAM, {"line": 3, "package": "openssh-server", "differs": False}),
        ("/etc/pam.d/sshd", Place.PAM, {}),
        ("/etc/pam.d/common-auth", Place.PAM, {"line": 3, "command": "auth [success=1 default=ignore] pam_unix.so"}),
        ("/etc/sudoers", Place.SUDO, {}),
        ("/etc/inittab", Place.INIT, {"line": 1, "command": "si::sysinit:/etc/init.d/rcS"}),
    ],
)
def test_what_cannot_be_disabled_says_what_helps(path: str, place: Place, fields: dict[str, object]) -> None:
    """What Stanch cannot disable safely is refused, with words for a person."""
    assert why_untouchable(autorun(path, place=place, **fields))


@pytest.mark.parametrize(
    ("path", "place", "fields"),
    [
        ("/etc/pam.d/sshd", Place.PAM, {"line": 3, "package": "openssh-server", "differs": True}),
        ("/etc/pam.d/common-auth", Place.PAM, {"line": 3, "command": "auth optional /tmp/pam_unix.so"}),
        ("/etc/pam.d/common-auth", Place.PAM, {"line": 3, "command": "auth optional pam_exec.so /tmp/pam_unix.so"}),
        ("/etc/sudoers", Place.SUDO, {"line": 3}),
        ("/etc/inittab", Place.INIT, {"line": 9, "command": "x:2345:respawn:/tmp/x"}),
        ("/run/systemd/system/x.service", Place.SYSTEMD_UNIT, {}),
    ],
)
def test_what_was_added_can_be_disabled(path: str, place: Place, fields: dict[str, object]) -> None:
    """A line that somebody added to such a file is one like any other."""
    assert why_untouchable(autorun(path, place=place, **fields)) is None


def test_whose_manager_reads_a_mask() -> None:
    """Only units of the system are stopped by systemctl; a package's unit counts again without the file before it."""
    assert is_of_system("/etc/systemd/system/x.service")
    assert not is_of_system("/etc/systemd/user/x.service")
    assert "/usr/lib/systemd/system/x.service" in packaged_twins("/etc/systemd/system/x.service")
    assert packaged_twins("/home/a/.config/systemd/user/x.service") == ()
