"""Where a scan looks, by area."""

import os
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.patience import Patience
from stanch.agent.host.scanner_areas import Place, patiently, places, targets
from stanch.core.scan_wire import MAX_BATCH
from stanch.core.scanning import Area, Files
from stanch.core.types import EndpointPath


def test_everything_is_one_walk(tmp_path):
    """Mounts are met on the way: none is looked at twice."""
    assert list(places(Files(area=Area.ALL), tmp_path)) == [Place(str(tmp_path), below=True)]


def test_the_system_is_where_programs_and_temporary_files_are(tmp_path):
    """Only what is there; a link to a folder that is looked at anyway is no second folder."""
    for name in ("usr/bin", "etc", "tmp", "media", "usr/lib"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    found = [one.path for one in places(Files(area=Area.SYSTEM), tmp_path)]
    assert sorted(found) == [str(tmp_path / one) for one in ("etc", "tmp", "usr")]


def test_a_named_path_is_looked_at_where_it_leads(tmp_path):
    """A link is followed once, by us, and not by the worker; odd bytes stay as they are."""
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff")
    Path(odd).mkdir()
    (tmp_path / "link").symlink_to(odd)
    paths = (EndpointPath.of(os.fsencode(odd)), EndpointPath.of(os.fsencode(tmp_path / "link")))
    assert [one.path for one in places(Files(area=Area.CUSTOM, paths=paths))] == [odd, odd]


def test_critical_are_boot_files_modules_and_what_every_program_loads(tmp_path):
    """And the libraries that ld.so.preload names, however they are separated."""
    modules = tmp_path / "lib" / "modules" / os.uname().release
    modules.mkdir(parents=True)
    (tmp_path / "boot").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "ld.so.preload").write_bytes(b"/nowhere/a.so:/nowhere/b.so\n relative.so /nowhere/c.so")
    found = list(places(Files(area=Area.CRITICAL), tmp_path))
    assert [one.path for one in found if one.below] == [str(tmp_path / "boot"), str(modules)]
    assert [one.path for one in found if not one.below] == [
        str(tmp_path / "etc" / "ld.so.preload"),
        *("/nowhere/a.so", "/nowhere/b.so", "/nowhere/c.so"),
    ]


def test_a_name_that_does_not_answer_is_told_and_left_out():
    """A file system that hangs ends no scan: the others are looked at."""
    answers, hanging = threading.Event(), list[str]()

    def ask(path):
        if path == "/hangs":
            answers.wait()
        return path.upper()

    lead = patiently(Patience("names", seconds=0.2), hanging.append)
    try:
        assert lead(["/a", "/hangs", "/b"], ask) == {"/a": "/A", "/b": "/B"}
        assert hanging == ["/hangs"]
    finally:
        answers.set()


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=20), st.integers(0, 1300))
def test_messages_hold_all_of_them_in_order(some, many):
    """Batches are bounded, alike in whether what is below counts, and nothing is lost."""
    all_of_them = [Place(f"/{n}", below=below) for n, below in some] + [Place("/x", below=True)] * many
    messages = list(targets(iter(all_of_them)))
    assert all(1 <= len(one["paths"]) <= MAX_BATCH for one in messages)
    assert [Place(path, below=one["below"]) for one in messages for path in one["paths"]] == all_of_them
