"""A folder of our own goes with everything in it, and with nothing else."""

import pytest

from stanch.agent.own_folders import remove_tree


def test_all_of_it_goes(tmp_path):
    """Folders in folders, files, links."""
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/file").write_text("x")
    (tree / "a/b/file").write_text("x")
    remove_tree(tree)
    assert not tree.exists()


def test_links_are_not_followed(tmp_path):
    """What they lead to stays, be it a folder."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").write_text("x")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(theirs)
    (tree / "file").symlink_to(theirs / "file")
    remove_tree(tree)
    assert not tree.exists()
    assert (theirs / "file").exists()


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path):
    """Whoever put it there must not choose what is removed."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (tmp_path / "tree").symlink_to(theirs)
    with pytest.raises(OSError, match=r"tree"):
        remove_tree(tmp_path / "tree")
    assert theirs.exists()


def test_what_is_not_there_needs_no_removing(tmp_path):
    """A second time changes nothing."""
    remove_tree(tmp_path / "tree")
