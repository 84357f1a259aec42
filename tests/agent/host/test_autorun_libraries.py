"""Is every library told that other people's programs load unasked?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.autorun_libraries import LibraryReader, is_preload, library_of, of_loader, pam_line
from stanch.agent.host.autorun_tree import Tree
from stanch.core.autoruns import Place, disabled_line
from tests.agent.host.autorun_root import new_root


@pytest.fixture
def root(tmp_path):
    """A machine."""
    return new_root(tmp_path)


def test_each_entry_of_ld_so_preload_is_told(root):
    """A disabled one, too."""
    root.write("/etc/ld.so.preload", "/opt/a.so\n\n# c\n" + disabled_line("tsk_1", "/opt/b.so") + "\n")
    found = [(one.name, one.line, one.program, one.enabled) for one in root.items(LibraryReader(), Place.PRELOAD)]
    assert found == [("a.so", 1, "/opt/a.so", True), ("b.so", 4, "/opt/b.so", False)]


def test_environment_files_that_preload_are_told(root):
    """The system's and those of homes; other variables are not."""
    root.write("/etc/environment", "PATH=/bin\nLD_PRELOAD=/opt/a.so\n")
    root.write("/etc/security/pam_env.conf", "LD_LIBRARY_PATH DEFAULT=/opt/lib\n")
    root.write("/etc/environment.d/x.conf", "LD_AUDIT='/opt/b.so'\n")
    root.write("/home/alice/.config/environment.d/y.conf", "# LD_PRELOAD=/no\nLD_PRELOAD=/opt/c.so\n")
    found = [(one.path, one.line, one.program) for one in root.items(LibraryReader(), Place.PRELOAD)]
    assert found == [
        ("/etc/environment", 2, "/opt/a.so"),
        ("/etc/security/pam_env.conf", 1, ""),
        ("/etc/environment.d/x.conf", 1, "/opt/b.so"),
        ("/home/alice/.config/environment.d/y.conf", 2, "/opt/c.so"),
    ]


def test_only_the_variables_of_the_loader_count():
    """And a library is named by its path."""
    assert is_preload('export LD_PRELOAD="/opt/a.so:/opt/b.so"')
    assert not is_preload("MY_LD_PRELOAD=/opt/a.so")
    assert library_of('export LD_PRELOAD="/opt/a.so:/opt/b.so"') == "/opt/a.so"
    assert library_of("LD_PRELOAD=a.so") == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("auth required pam_unix.so nullok", ("pam_unix.so", "nullok")),
        ("auth\t[success=1 default=ignore]\tpam_unix.so", ("pam_unix.so", "")),
        ("-session optional /opt/pam_x.so a=b # c", ("/opt/pam_x.so", "a=b")),
        ("login auth required pam_unix.so", ("pam_unix.so", "")),
        ("auth include common-auth", None),
        ("auth substack common-auth", None),
        ("@include common-auth", None),
        ("# auth required pam_unix.so", None),
        ("auth required", None),
        ("", None),
    ],
)
def test_a_line_of_pam_is_read(text, found):
    """Its control may be in brackets; a service may stand before; what includes another file is no module."""
    assert pam_line(text) == found


@given(st.text(max_size=300))
def test_any_text_is_a_line_of_pam_or_none(text):
    """A line has a module."""
    found = pam_line(text)
    assert found is None or found[0]


def test_modules_of_pam_are_told_with_their_files(root):
    """One that is nowhere is noted; of pam_exec the program counts."""
    root.write("/lib/x86_64-linux-gnu/security/pam_unix.so")
    root.write("/lib/security/pam_exec.so")
    lines = [
        "auth required pam_unix.so",
        "auth optional pam_exec.so quiet /opt/x \\",
        "   --log",
        "auth sufficient pam_evil.so",
    ]
    root.write("/etc/pam.d/sshd", "\n".join(lines))
    found = {one.line: (one.name, one.program, one.notes) for one in root.items(LibraryReader(), Place.PAM)}
    assert found == {
        1: ("sshd: pam_unix.so", "/lib/x86_64-linux-gnu/security/pam_unix.so", ()),
        2: ("sshd: pam_exec.so", "/opt/x", ()),
        4: ("sshd: pam_evil.so", "", ("its module is in none of the usual folders",)),
    }


def test_folders_of_the_loader_are_told(root):
    """With what they name."""
    root.write("/etc/ld.so.conf.d/x.conf", "# c\n/opt/lib\n")
    tree = Tree(root.folder)
    assert [(one.path, one.command) for one in of_loader(tree)] == [("/etc/ld.so.conf.d/x.conf", "/opt/lib")]
    tree.close()
