"""Does each file get the package that brought it, and is a file that is another one by now noticed?"""

import hashlib
import os
import shutil

import pytest

from stanch.agent.host import packages as module
from stanch.agent.host.package_database import Brought
from stanch.agent.host.packages import Packages
from stanch.core.types import EndpointPath


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def path(text):
    return EndpointPath(text)


@pytest.fixture
def debian(tmp_path):
    """A root folder with a merged /usr and three packages of dpkg."""
    for folder in ("usr/bin", "usr/sbin", "etc", "var/lib/dpkg/info"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "sbin").symlink_to("/usr/sbin")
    info = tmp_path / "var/lib/dpkg/info"
    (info / "tools.list").write_text("/.\n/bin\n/bin/old\n/usr\n/usr/bin\n/usr/bin/new\n/sbin/admin\n")
    (info / "tools.md5sums").write_text(
        f"{md5(b'old')}  bin/old\n{md5(b'new')}  usr/bin/new\n{md5(b'admin')}  sbin/admin\n"
    )
    (info / "library:amd64.list").write_text("/etc/library.conf\n/usr/bin/unsummed\n")
    (tmp_path / "var/lib/dpkg/status").write_text(
        f"Package: library\nStatus: install ok installed\nConffiles:\n /etc/library.conf {md5(b'conf')}\n"
        " /etc/gone.conf newconffile\nDescription: some\n /etc/library.conf is told of here too\n\n"
    )
    for name, content in {"bin/old": b"old", "bin/new": b"new", "sbin/admin": b"admin", "bin/unsummed": b"x"}.items():
        (tmp_path / "usr" / name).write_bytes(content)
    (tmp_path / "etc/library.conf").write_bytes(b"conf")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("/bin/old", "tools"),
        ("/usr/bin/old", "tools"),  # listed by its old name
        ("/usr/bin/new", "tools"),
        ("/bin/new", "tools"),  # asked for by its old name
        ("/usr/sbin/admin", "tools"),
        ("/etc/library.conf", "library"),
        ("/usr/bin/stranger", None),
        ("/usr/bin", "tools"),
        ("/bin/", None),
    ],
)
def test_a_file_has_its_package_by_either_name(debian, name, package):
    """Since /usr is merged, packages and people call the same file by two names."""
    assert Packages(debian).owners([path(name)]).get(path(name)) == package


def test_two_files_are_not_one_where_usr_is_not_merged(debian):
    """Without the link, /bin/new is nobody's."""
    (debian / "bin").unlink()
    assert Packages(debian).owners([path("/bin/new"), path("/bin/old")]) == {"/bin/old": "tools"}


ALL = [path(one) for one in ("/bin/old", "/usr/bin/new", "/usr/sbin/admin", "/etc/library.conf", "/usr/bin/unsummed")]


def test_what_is_as_it_was_brought_does_not_differ(debian):
    """Checksums of files and of configuration; of a file without one nobody can tell."""
    packages = Packages(debian)
    assert packages.differs_many(ALL) == dict.fromkeys(ALL[:4], False)
    assert packages.differs(ALL[4]) is None
    assert packages.differs(path("/usr/bin/stranger")) is None


def test_a_changed_file_differs(debian):
    """One byte is enough, in a program as in a configuration."""
    (debian / "usr/bin/new").write_bytes(b"neW")
    (debian / "etc/library.conf").write_bytes(b"conf\n")
    assert Packages(debian).differs_many(ALL) == {ALL[0]: False, ALL[1]: True, ALL[2]: False, ALL[3]: True}


def test_a_link_in_the_place_of_a_file_differs(debian):
    """It is not followed: what it leads to may be as the package brought it, and the file is not."""
    (debian / "usr/bin/new").rename(debian / "usr/bin/aside")
    (debian / "usr/bin/new").symlink_to("aside")
    assert Packages(debian).differs(path("/usr/bin/new")) is True


def test_something_else_in_the_place_of_a_file_differs_and_nobody_waits(debian):
    """A pipe would make a careless reader wait for ever."""
    for number, make in enumerate((os.mkfifo, os.mkdir)):
        target = debian / "usr/bin" / ("new", "old")[number]
        target.unlink()
        make(target)
    assert Packages(debian).differs_many(ALL[:2]) == {ALL[0]: True, ALL[1]: True}


def test_no_link_leads_out_of_the_root_folder(debian, tmp_path_factory):
    """Below an image, a path means what it means inside of the image."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "admin").write_bytes(b"of the machine itself")
    shutil.rmtree(debian / "usr/sbin")
    (debian / "usr/sbin").symlink_to(outside)
    assert Packages(debian).differs(path("/usr/sbin/admin")) is None


def test_what_is_gone_is_left_out(debian):
    """No file, no answer."""
    (debian / "usr/bin/new").unlink()
    assert Packages(debian).differs(path("/usr/bin/new")) is None


def test_a_file_that_is_too_large_is_left_out(debian, monkeypatch):
    """Of one file, and of all together, only so much is read."""
    monkeypatch.setattr(module, "MAX_FILE", 3)
    (debian / "usr/bin/new").write_bytes(b"newer")
    assert Packages(debian).differs_many(ALL[:2]) == {ALL[0]: False}
    monkeypatch.setattr(module, "MAX_ALL", 2)
    assert Packages(debian).differs_many(ALL[:2]) == {}


def test_a_machine_without_any_database_knows_nothing(tmp_path):
    """No error: nobody can tell."""
    assert Packages(tmp_path).owners(ALL) == {}
    assert Packages(tmp_path).differs_many(ALL) == {}


def test_odd_bytes_in_a_path_are_found(debian):
    """A path is bytes; its text form is only for people."""
    odd = EndpointPath.of(b"/usr/bin/\xff\xfe x")
    (debian / "var/lib/dpkg/info/odd.list").write_bytes(b"/usr/bin/\xff\xfe x\n")
    assert Packages(debian).owners([odd]) == {odd: "odd"}


class Knows:
    """A database that knows one file."""

    def __init__(self, name, package, content):
        self._name, self._package, self._content = name, package, content

    def owners(self, names):
        return {self._name: self._package} if self._name in names else {}

    def brought(self, names):
        found = Brought("sha256", hashlib.sha256(self._content).hexdigest())
        return {self._name: found} if self._name in names else {}


def test_several_databases_are_asked_and_the_first_wins(tmp_path):
    """A machine may have more than one package manager."""
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"b")
    both = Packages(
        tmp_path, databases=[Knows(b"/a", "first", b"one"), Knows(b"/a", "second", b"two"), Knows(b"/b", "third", b"x")]
    )
    assert both.owners([path("/a"), path("/b")]) == {"/a": "first", "/b": "third"}
    assert both.differs_many([path("/a"), path("/b")]) == {"/a": False, "/b": True}
