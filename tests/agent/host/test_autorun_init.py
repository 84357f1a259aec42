"""Is everything told that another init than systemd starts?"""

import pytest

from stanch.agent.host.autorun_init import InitReader
from stanch.core.autoruns import Place, disabled_line
from tests.agent.host.autorun_root import new_root


@pytest.fixture
def root(tmp_path):
    """A machine."""
    return new_root(tmp_path)


def found(root, *places):
    return {one.path: (one.command, one.enabled) for one in root.items(InitReader(), *places)}


def test_a_script_is_enabled_by_a_link_that_starts_it(root):
    """A link that stops it does not, nor a level without a link."""
    for name in ("on", "off", "stopped"):
        root.program(f"/etc/init.d/{name}")
    root.link("/etc/rc2.d/S01on", "../init.d/on")
    root.link("/etc/rc0.d/K01stopped", "../init.d/stopped")
    root.write("/etc/init.d/README")
    assert found(root, Place.INIT) == {
        "/etc/init.d/on": ("/etc/init.d/on", True),
        "/etc/init.d/off": ("/etc/init.d/off", False),
        "/etc/init.d/stopped": ("/etc/init.d/stopped", False),
    }


def test_what_stands_in_a_level_itself_is_told(root):
    """A program, or a link to one that is no script of init."""
    root.program("/etc/rc2.d/S99evil")
    root.program("/opt/x")
    root.link("/etc/rcS.d/S01x", "/opt/x")
    root.program("/etc/init.d/net")
    root.link("/etc/runlevels/default/net", "/etc/init.d/net")
    assert found(root, Place.INIT) == {
        "/etc/init.d/net": ("/etc/init.d/net", True),
        "/etc/rc2.d/S99evil": ("/etc/rc2.d/S99evil", True),
        "/etc/rcS.d/S01x": ("/etc/rcS.d/S01x", True),
    }


def test_scripts_of_red_hat_are_told_once(root):
    """Its /etc/init.d is a link."""
    root.program("/etc/rc.d/init.d/x")
    root.link("/etc/init.d", "rc.d/init.d")
    root.link("/etc/rc.d/rc3.d/S01x", "../init.d/x")
    assert found(root, Place.INIT) == {"/etc/init.d/x": ("/etc/init.d/x", True)}


def test_inittab_is_read(root):
    """What is off starts nothing; busybox leaves the name out."""
    lines = ["id:2:initdefault:", "x:23:respawn:/opt/x", "y:2:off:/opt/y", "::sysinit:-/opt/z", "# c"]
    root.write("/etc/inittab", "\n".join([*lines, disabled_line("tsk_1", "e:2:once:/opt/e")]))
    items = root.items(InitReader(), Place.INIT)
    assert [(one.name, one.command, one.enabled) for one in items] == [
        ("inittab: x", "x:23:respawn:/opt/x", True),
        ("inittab: sysinit", "::sysinit:-/opt/z", True),
        ("inittab: e", "e:2:once:/opt/e", False),
    ]


def test_jobs_of_upstart_are_read(root):
    """Those without an occasion start by hand only."""
    root.write("/etc/init/x.conf", "start on runlevel [2345]\nexec /opt/x\n")
    root.write("/etc/init/y.conf", "exec /opt/y\n")
    root.write("/etc/init/other", "exec /opt/z\n")
    assert found(root, Place.INIT) == {"/etc/init/x.conf": ("/opt/x", True), "/etc/init/y.conf": ("/opt/y", False)}


def test_rc_local_and_its_like_are_told_with_what_they_say(root):
    """What may not be executed is off; a link to one that is told already is not told again."""
    root.program("/etc/rc.d/rc.local", "#!/bin/sh\n/opt/x\nexit 0\n")
    root.link("/etc/rc.local", "rc.d/rc.local")
    root.write("/etc/init.d/boot.local", "/opt/y\n")
    root.program("/etc/local.d/z.start", "/opt/z\n")
    assert found(root, Place.RC) == {
        "/etc/rc.local": ("/opt/x", True),
        "/etc/init.d/boot.local": ("/opt/y", False),
        "/etc/local.d/z.start": ("/opt/z", True),
    }


def test_what_is_no_file_is_told_as_unread(root):
    """And not waited for."""
    root.fifo("/etc/rc.local")
    root.fifo("/etc/inittab")
    items, unread = root.read(InitReader())
    assert (items, {one.path for one in unread}) == ([], {"/etc/rc.local", "/etc/inittab"})
