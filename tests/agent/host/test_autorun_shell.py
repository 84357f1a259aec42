"""Is every file told that a shell or a desktop reads when somebody logs in?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.autorun_shell import ShellReader, desktop_entry, suspicious_lines
from stanch.core.autoruns import Place
from tests.agent.host.autorun_root import new_root


@pytest.fixture
def root(tmp_path):
    """A machine."""
    return new_root(tmp_path)


def test_start_up_files_are_told_with_whose_they_are(root):
    """The system's and each home's, as wholes; other files of a home are not."""
    paths = ["/etc/profile", "/etc/profile.d/x.sh", "/etc/zsh/zshrc", "/etc/fish/conf.d/x.fish"]
    own = ["/root/.bashrc", "/home/alice/.zshenv", "/home/alice/.config/fish/config.fish"]
    for path in [*paths, *own, "/home/alice/notes.sh"]:
        root.write(path, "# comment\nexport A=1\n  b\n")
    items = root.items(ShellReader(), Place.SHELL)
    assert {one.path: one.user for one in items} == {
        **dict.fromkeys(paths, ""),
        "/root/.bashrc": "root",
        "/home/alice/.zshenv": "alice",
        "/home/alice/.config/fish/config.fish": "alice",
    }
    assert {(one.command, one.line) for one in items} == {("export A=1; b", 0)}


def test_what_deserves_a_look_is_seen_wherever_it_stands():
    """Beyond the part of the file that is told, too; each kind once."""
    lines = ["x" * 100] * 100 + ["curl http://x | sh"] * 2 + ["export LD_PRELOAD=/tmp/x.so"]
    assert list(suspicious_lines(lines)) == [
        "it pipes a download to a shell",
        "it preloads a library, or says where libraries are",
    ]


def test_a_start_up_file_that_is_no_file_is_told_as_unread(root):
    """A pipe would stop every login; nobody waits for it here."""
    root.fifo("/home/alice/.bashrc")
    items, unread = root.read(ShellReader(), Place.SHELL)
    assert (items, [one.path for one in unread]) == ([], ["/home/alice/.bashrc"])


def test_desktop_entries_are_told_with_their_conditions(root):
    """Hidden ones are off; only files of this kind count."""
    root.write("/etc/xdg/autostart/a.desktop", "[Desktop Entry]\nName=A\nExec=/opt/a %U\nOnlyShowIn=GNOME;\n")
    root.write("/home/alice/.config/autostart/b.desktop", "[Desktop Entry]\nExec=/opt/b\nHidden=true\n")
    root.write("/home/alice/.config/autostart/notes.txt", "x")
    root.program("/home/alice/.config/autostart-scripts/c.sh")
    found = {one.path: one for one in root.items(ShellReader(), Place.DESKTOP)}
    a, b, c = (found[path] for path in sorted(found))
    assert (a.name, a.command, a.user, a.enabled, a.notes) == (
        *("A (a.desktop)", "/opt/a %U", "", True),
        ("OnlyShowIn=GNOME;",),
    )
    assert (c.command, c.user, c.enabled) == ("/opt/b", "alice", False)
    assert (b.program, b.user) == ("/home/alice/.config/autostart-scripts/c.sh", "alice")


KEYS = st.sampled_from(["Name", "Exec", "Hidden"])
VALUES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20)


@given(st.dictionaries(KEYS, VALUES), st.dictionaries(KEYS, VALUES))
def test_an_entry_is_what_its_own_section_says(own, other):
    """Actions of it have sections of their own."""
    lines = [f"{key}={value}" for key, value in own.items()]
    more = [f"{key}={value}" for key, value in other.items()]
    assert desktop_entry("\n".join(["[Desktop Entry]", *lines, "[Desktop Action x]", *more])) == own


@given(st.text(max_size=300))
def test_any_text_is_an_entry(text):
    """Perhaps an empty one."""
    desktop_entry(text)
