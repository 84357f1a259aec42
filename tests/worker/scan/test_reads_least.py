"""What is not needed is not read: the worker opens only files that can still fit."""

import hashlib
import os
from pathlib import Path

import pytest

from tests.core.ioc.openioc_files import file_11, group, term, written
from tests.worker.scan.driving import Done, worker

OTHER = 12_345
SIZE = 1000
NOBODY = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""A worker without any right to read what is not its own: whatever it opens of that, it has to tell."""

NAME = term(path="FileName", content="evil")
LARGE = term(path="SizeInBytes", content=str(SIZE), type="int")
CONTENT = bytes(SIZE)
MD5 = term(path="Md5sum", content=hashlib.md5(CONTENT, usedforsecurity=False).hexdigest(), type="md5")
TEXT = term(path="StringList/string", content="nowhere")


def looked(folder: Path, *terms: object) -> Done:
    """A scan for a file for which all of these hold."""
    data = file_11(written(group("AND", *terms)))  # type: ignore[arg-type]
    with worker([("openioc", "one.ioc", data)], prefix=NOBODY) as driver:
        driver.targets(folder)
        return driver.finish()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of several names and sizes, none of which the worker may open, and one that it may."""
    if os.geteuid() != 0:
        pytest.skip("only root can give up a right, and give files away")
    for name, size in {"evil": SIZE, "evil.long": SIZE + 1, "same": SIZE, "small": 3, "sub/evil": 7}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(size))
        if name != "evil":
            path.chmod(0)
            os.chown(path, OTHER, OTHER)
    return tmp_path


@pytest.mark.parametrize(
    ("terms", "found", "opened"),
    [
        ((NAME,), {"evil", "sub/evil"}, set()),
        ((LARGE,), {"evil", "same"}, set()),
        ((NAME, LARGE), {"evil"}, set()),
        ((NAME, LARGE, MD5), {"evil"}, set()),
        ((LARGE, MD5), {"evil"}, {"same"}),
        ((MD5,), {"evil"}, {"evil.long", "same", "small", "sub/evil"}),
        ((NAME, TEXT), set(), {"sub/evil"}),
        ((term(path="FileName", content="nowhere"), MD5, TEXT), set(), set()),
    ],
)
def test_only_what_can_fit_is_opened(
    folder: Path, terms: tuple[object, ...], found: set[str], opened: set[str]
) -> None:
    """Name and size come first: a file that they rule out is not even opened, whatever else is asked."""
    done = looked(folder, *terms)
    assert {name for _rule, name in done.found} == {str(folder / one) for one in found}
    assert done.skipped == {(str(folder / one), "unreadable") for one in opened}
