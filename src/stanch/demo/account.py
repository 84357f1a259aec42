"""An account of the demo's endpoint without root's rights."""

from pathlib import Path

from stanch.demo.init import needed_here

_READ_ALL = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")


def lowered(uid: int) -> tuple[str, ...]:
    """A command line goes after this: it runs as this account, which is in no group and cannot become root.

    Where Stanch lies in a folder that only root may enter, as a checkout in root's home does, the account may read
    whatever there is, so that it can start `stanch` at all; the agent goes by the account, not by that.
    """
    needs_help = not all(map(open_to_all, needed_here()))
    return (
        *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"),
        *(_READ_ALL if needs_help else ()),
        "--",
    )


def open_to_all(folder: Path) -> bool:
    """May every account enter and read it?"""
    ways = [one.stat().st_mode & 0o001 for one in folder.parents]
    return all(ways) and folder.stat().st_mode & 0o005 == 0o005  # noqa: PLR2004 - read and enter, as ls shows it
