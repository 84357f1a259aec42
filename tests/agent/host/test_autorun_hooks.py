"""Is everything told that other programs start on some occasion?"""

import pytest

from stanch.agent.host.autorun_hooks import HookReader
from stanch.core.autoruns import Place
from tests.agent.host.autorun_root import new_root


@pytest.fixture
def root(tmp_path):
    """A machine."""
    return new_root(tmp_path)


def test_programs_of_hook_folders_are_told(root):
    """What may not be executed is off, unless a shell reads it."""
    root.program("/etc/update-motd.d/10-x")
    root.write("/etc/network/if-up.d/off")
    root.program("/etc/NetworkManager/dispatcher.d/pre-up.d/y")
    root.write("/etc/dhcp/dhclient-exit-hooks.d/z")
    root.write("/etc/update-motd.d/README")
    root.write("/etc/dhclient-exit-hooks")
    found = {one.path: (one.place, one.enabled) for one in root.items(HookReader())}
    assert found == {
        "/etc/update-motd.d/10-x": (Place.OTHER, True),
        "/etc/network/if-up.d/off": (Place.OTHER, False),
        "/etc/NetworkManager/dispatcher.d/pre-up.d/y": (Place.OTHER, True),
        "/etc/dhcp/dhclient-exit-hooks.d/z": (Place.OTHER, True),
        "/etc/dhclient-exit-hooks": (Place.OTHER, True),
    }


def test_hooks_of_package_managers_are_told(root):
    """On one line or on several; other settings are not."""
    text = [
        'APT::Periodic::Update-Package-Lists "1";',
        'DPkg::Pre-Invoke {"/opt/a; true";};',
        "DPkg::Post-Invoke {",
        '  "/opt/b";',
        "};",
        '// DPkg::Post-Invoke {"/opt/no";};',
        'Dir::Cache "x";',
    ]
    root.write("/etc/apt/apt.conf.d/x", "\n".join(text))
    root.write("/etc/dpkg/dpkg.cfg.d/y", "no-debsig\npre-invoke=/opt/c\n")
    assert [(one.path, one.line, one.starts) for one in root.items(HookReader())] == [
        ("/etc/apt/apt.conf.d/x", 2, "/opt/a; true"),
        ("/etc/apt/apt.conf.d/x", 4, "/opt/b"),
        ("/etc/dpkg/dpkg.cfg.d/y", 2, "/opt/c"),
    ]


def test_python_that_starts_with_python_is_told(root):
    """Lines of .pth files that are imports, the two modules of customization; paths are not."""
    root.write("/usr/lib/python3/dist-packages/a.pth", "/opt/lib\nimport os; os.system('/opt/x')\n")
    root.write("/usr/local/lib/python3.11/site-packages/sitecustomize.py", "x")
    root.write("/home/alice/.local/lib/python3.11/site-packages/b.pth", "import\tevil\n")
    found = [(one.path, one.line, one.user) for one in root.items(HookReader())]
    assert found == [
        ("/usr/lib/python3/dist-packages/a.pth", 2, ""),
        ("/usr/local/lib/python3.11/site-packages/sitecustomize.py", 0, ""),
        ("/home/alice/.local/lib/python3.11/site-packages/b.pth", 1, "alice"),
    ]


def test_binary_formats_are_told_with_their_interpreters(root):
    """The sign between the fields is the first of the line."""
    root.write("/etc/binfmt.d/x.conf", "# c\n:x:M::\\x7fELF::/opt/x:OC\n,y,E,,py,,/opt/y,\nrubbish\n")
    assert [(one.name, one.program) for one in root.items(HookReader())] == [
        ("binfmt: x", "/opt/x"),
        ("binfmt: y", "/opt/y"),
    ]


def test_what_is_no_file_is_told_as_unread(root):
    """And not waited for."""
    root.fifo("/etc/update-motd.d/x")
    root.fifo("/usr/lib/python3/dist-packages/x.pth")
    items, unread = root.read(HookReader())
    assert (items, len(unread)) == ([], 2)
