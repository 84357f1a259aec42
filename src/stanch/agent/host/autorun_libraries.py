"""Reads which libraries start in other people's programs: ld.so.preload, LD_PRELOAD, and the modules of PAM."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from stanch.agent.host.autorun_found import Item, of_file, of_line
from stanch.agent.host.autorun_tree import Tree, joined_lines
from stanch.core.autoruns import Place

PRELOAD = "/etc/ld.so.preload"
ENVIRONMENTS = ("/etc/environment", "/etc/security/pam_env.conf", "/etc/default/locale")
_ENVIRONMENT_FOLDERS = (
    "/etc/environment.d",
    "/usr/lib/environment.d",
    "/run/environment.d",
    "/usr/local/lib/environment.d",
)
_OF_HOME = (".pam_environment",)

PAM_FOLDERS = ("/etc/pam.d", "/usr/lib/pam.d")
MODULE_FOLDERS = (
    *("/lib/security", "/lib64/security", "/usr/lib/security", "/usr/lib64/security", "/usr/local/lib/security"),
    *("/lib/x86_64-linux-gnu/security", "/lib/aarch64-linux-gnu/security", "/lib/riscv64-linux-gnu/security"),
    *("/lib/powerpc64le-linux-gnu/security", "/lib/s390x-linux-gnu/security", "/lib/arm-linux-gnueabihf/security"),
)

_LOADED = re.compile(r"\bLD_(?:PRELOAD|AUDIT|LIBRARY_PATH)\s{0,10}(?:=|DEFAULT|OVERRIDE)")
_VALUE = re.compile(r"\bLD_(?:PRELOAD|AUDIT)\s{0,10}=\s{0,10}[\"']?(/[^\s:;\"']{1,1000})")
_PAM_LINE = re.compile(
    r"\s*(?:[^\s\[#@][^\s\[]*\s+)?-?(?:auth|account|password|session)\s+(\[[^\]]*\]|\S+)\s+([^\s#]+)([^#]*)"
)
"""In pam.conf the service stands before; the control may be in brackets, with spaces in it."""

_INCLUDES = frozenset({"include", "substack"})


@dataclass(frozen=True, slots=True)
class LibraryReader:
    """Preloaded libraries and PAM."""

    places: Collection[Place] = (Place.PRELOAD, Place.PAM)

    def read(self, tree: Tree, places: Collection[Place]) -> Iterator[Item]:
        """First what is preloaded."""
        if Place.PRELOAD in places:
            yield from _preloaded(tree)
            yield from _environments(tree)
        if Place.PAM in places:
            yield from _pam(tree)


# --- preload ---------------------------------------------------------------------------------------------------------


def is_preload(text: str) -> bool:
    """Does a text set a variable that has the loader load something?"""
    return _LOADED.search(text) is not None


def library_of(text: str) -> str:
    """The first library that it names; empty if it names none by its path."""
    found = _VALUE.search(text)
    return found[1] if found else ""


def _preloaded(tree: Tree) -> Iterator[Item]:
    for line in tree.lines(PRELOAD):
        names = line.text.partition("#")[0].replace(":", " ").split()
        if names:
            program = names[0] if names[0].startswith("/") else ""
            yield of_line(Place.PRELOAD, PRELOAD, line, name=names[0].rpartition("/")[2], program=program, user="all")


def _environments(tree: Tree) -> Iterator[Item]:
    paths = list(ENVIRONMENTS) + [path for folder in _ENVIRONMENT_FOLDERS for path in tree.paths(folder)]
    for one in tree.homes():
        paths += [f"{one.home}/{name}" for name in _OF_HOME] + tree.paths(f"{one.home}/.config/environment.d")
    for path in paths:
        for line in tree.lines(path) if tree.status(path) else ():
            if not line.is_blank and is_preload(line.text):
                yield of_line(
                    Place.PRELOAD, path, line, name=path.rpartition("/")[2], program=library_of(line.text), starts="-"
                )


# --- PAM -------------------------------------------------------------------------------------------------------------


def _pam(tree: Tree) -> Iterator[Item]:
    modules = dict[str, str]()
    for path in ["/etc/pam.conf", *(path for folder in PAM_FOLDERS for path in tree.paths(folder))]:
        for line, text in joined_lines(tree.lines(path)) if tree.status(path) else ():
            found = pam_line(text)
            if found is None:
                continue
            module, arguments = found
            if module not in modules and len(modules) < 1000:  # noqa: PLR2004 - a bound
                modules[module] = _module_file(tree, module)
            file = modules.get(module, "")
            program = _started(module, arguments) or file
            yield of_line(
                Place.PAM,
                path,
                line,
                name=f"{path.rpartition('/')[2]}: {module.rpartition('/')[2]}",
                command=" ".join(text.split()),
                program=program,
                starts="-",
                user="root",
                notes=() if file else ("its module is in none of the usual folders",),
            )


def pam_line(text: str) -> tuple[str, str] | None:
    """Module and arguments of a line; None for a line that includes another file, or is none."""
    found = _PAM_LINE.match(text)
    return None if found is None or found[1] in _INCLUDES else (found[2], found[3].strip())


def _module_file(tree: Tree, module: str) -> str:
    """Where a module is; empty if it is not there."""
    paths = [module] if module.startswith("/") else [f"{folder}/{module}" for folder in MODULE_FOLDERS]
    return next((path for path in paths if "$" not in path and tree.is_file(path)), "")


def _started(module: str, arguments: str) -> str:
    """The program that pam_exec starts."""
    if not module.endswith("pam_exec.so"):
        return ""
    return next((one for one in arguments.split() if one.startswith("/")), "")


def of_loader(tree: Tree) -> Iterator[Item]:
    """Folders from which every program takes its libraries: told, since a folder of an attacker may be among them."""
    for path in ["/etc/ld.so.conf", *tree.paths("/etc/ld.so.conf.d")]:
        if tree.is_file(path):
            folders = [line.text.strip() for line in tree.lines(path) if not line.is_blank]
            yield of_file(
                Place.OTHER,
                path,
                name=f"loader: {path.rpartition('/')[2]}",
                command=" ".join(folders)[:4000],
                starts="-",
            )
