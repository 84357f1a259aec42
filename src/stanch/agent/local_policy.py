"""What the owner of this machine forbids, whoever orders it: `/etc/stanch/agent.toml`.

    [actions]
    forbid = ["kill_process"]       # or: allow = ["list_processes", "get_file"]; forbid wins
    enable = ["shell"]              # what is refused on every machine whose owner does not switch it on

    [paths]
    forbid = ["/root", "/etc/shadow"]
    write = ["/opt/incident"]       # files may be put, and restored to another place, below these folders only

    [programs]
    allow = ["/opt/incident"]       # programs may be run from these folders, or these files, only
    interpreters = false            # no scripts, no shells, nothing that runs whatever it is told

    [critical]
    allow = ["/usr/bin/dash"]       # may be taken away although the machine needs it

    [vault]
    folder = "/srv/stanch-vault"    # where quarantined files are kept; read when the agent starts

Paths bind every parameter that is a path, by whole components, by the name that was ordered and by what its links
lead to, and every file that a search or a pattern finds. The server cannot override any of it. The file binds orders of
the server only: a deadline that lifts an effect, and root's own `stanch local`, go on. So `release` may be forbidden,
which is said as a warning; the isolation then ends by its deadline or at the machine itself.

No file, no limits, and nothing is switched on that must be: the shell is refused then. A file that cannot be read, or
says something unknown, refuses every order until it is repaired: a misspelt limit must not be no limit. It binds only
while running programs, putting files and the shell are forbidden too.
"""

import hashlib
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from stanch.agent.path_rules import PathRules, Resolve, is_below
from stanch.core.action import AnyAction, Params, Registry, Undo, invalid_fields
from stanch.core.errors import ForbiddenHere, Invalid
from stanch.core.model import Model
from stanch.core.types import EndpointPath, Name

MAX_FILE_BYTES = 1_048_576

Names = Annotated[tuple[Name, ...], Field(max_length=1000)]


class ActionLimits(Model):
    """Section `actions`."""

    allow: Names | None = None
    """Only these actions; null for all."""

    forbid: Names = ()
    """Not these actions."""

    enable: Names = ()
    """These actions, which are refused where nobody has switched them on."""

    def enables(self, action: AnyAction) -> bool:
        """Is it switched on, or one that need not be?"""
        return not action.opt_in or action.name in map(_plain, self.enable)

    def forbids(self, action: str) -> bool:
        """Is this action forbidden? Names may be written as commands."""
        allowed = self.allow is None or action in map(_plain, self.allow)
        return not allowed or action in map(_plain, self.forbid)


class PathLimits(Model):
    """Section `paths`."""

    forbid: Annotated[tuple[EndpointPath, ...], Field(max_length=10_000)] = ()
    """Not these files, and nothing below these folders."""

    write: Annotated[tuple[EndpointPath, ...], Field(max_length=10_000)] | None = None
    """Put files below these folders only; null for everywhere."""


class ProgramLimits(Model):
    """Section `programs`."""

    allow: Annotated[tuple[EndpointPath, ...], Field(max_length=10_000)] | None = None
    """Run these files, and what is below these folders, only; null for everything."""

    interpreters: bool = True
    """May scripts be run, and shells, interpreters and what starts other programs?"""


class CriticalLimits(Model):
    """Section `critical`."""

    allow: Annotated[tuple[EndpointPath, ...], Field(max_length=10_000)] = ()
    """What may be taken away or replaced although the machine needs it."""


class VaultPlace(Model):
    """Section `vault`."""

    folder: EndpointPath | None = None
    """Where the vault is; null for a folder beside the journal."""


class Limits(Model):
    """The sections of the file that are policy; others belong to others."""

    actions: ActionLimits = ActionLimits()
    """Which actions."""

    paths: PathLimits = PathLimits()
    """Which paths."""

    programs: ProgramLimits = ProgramLimits()
    """Which programs may be run."""

    critical: CriticalLimits = CriticalLimits()
    """What of the machine's own may be taken."""

    vault: VaultPlace = VaultPlace()
    """Where the vault is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One state of the file."""

    mark: tuple[int, ...] | None
    """What `stat` said; None if there is no file."""

    digest: str
    limits: Limits | None
    """None if the file is broken."""

    broken: str | None = None


class LocalPolicy:
    """The file as it is now: each question looks whether it has changed."""

    def __init__(self, path: Path, *, resolve: Resolve = os.path.realpath) -> None:
        self._path = path
        self._resolve = resolve
        self._reading = read(path)

    @property
    def digest(self) -> str:
        """SHA-256 of the file, hexadecimal; empty if there is none."""
        return self._reading.digest

    @property
    def broken(self) -> str | None:
        """Why no order is accepted, or None."""
        return self._reading.broken

    def refresh(self) -> bool:
        """Read the file again if it was touched; True if its content is another one."""
        if _mark(self._path) == self._reading.mark:
            return False
        before, self._reading = self._reading, read(self._path)
        return before.digest != self._reading.digest or before.broken != self._reading.broken

    def check(self, action: AnyAction, params: Params) -> None:
        """ForbiddenHere if the owner forbids this action, or a path in its parameters by the name it was given."""
        limits = self._limits()
        if limits.actions.forbids(action.name):
            raise ForbiddenHere(f"The owner of this machine forbids {action.command}", got=action.name)
        also = next((one for one in params.does_also() if limits.actions.forbids(one)), None)
        if also is not None:
            raise ForbiddenHere(f"The owner of this machine forbids what {action.command} is to do besides", got=also)
        if not limits.actions.enables(action):
            raise _not_enabled(action, self._path, limits)
        for path in paths_of(params):
            _check_path(path, path, limits.paths.forbid)

    def check_links(self, params: Params) -> None:
        """ForbiddenHere if a path leads to a forbidden one through links. Asks the file system: may take its time."""
        named = self._limits().paths.forbid
        forbidden = (*named, *(EndpointPath.of(self._resolve(one.raw)) for one in named))
        for path in paths_of(params) if forbidden else ():
            _check_path(path, EndpointPath.of(self._resolve(path.raw)), forbidden)

    def path_rules(self) -> PathRules:
        """What binds a task of the server, whatever leads to a file; nothing may be touched if the file is broken."""
        limits = self._reading.limits
        if limits is None:
            return PathRules(forbid=(EndpointPath("/"),))
        return PathRules(
            forbid=limits.paths.forbid,
            write=limits.paths.write,
            programs=limits.programs.allow,
            interpreters=limits.programs.interpreters,
            resolve=self._resolve,
        )

    def may_be_taken(self) -> tuple[EndpointPath, ...]:
        """What may be taken away although the machine needs it."""
        limits = self._reading.limits
        return () if limits is None else limits.critical.allow

    def vault_folder(self, otherwise: Path) -> Path:
        """Where the vault is."""
        limits = self._reading.limits
        folder = None if limits is None else limits.vault.folder
        return otherwise if folder is None else Path(os.fsdecode(folder.raw))

    def warnings(self, registry: Registry) -> tuple[str, ...]:
        """What the owner should know about the limits."""
        limits = self._reading.limits
        if limits is None:
            return (f"No order is accepted: {self._reading.broken}",)
        allowed = [one for one in registry.values() if not limits.actions.forbids(one.name)]
        no_way_back = (
            f"{one.name} is allowed, but {back}, which takes it back, is forbidden"
            for one in allowed
            if isinstance(one.undo, Undo)
            for back in one.undo.actions
            if limits.actions.forbids(back)
        )
        boundless = (
            f"{one.name} is enabled: no other limit in this file binds whoever is given it"
            for one in allowed
            if one.interactive and limits.actions.enables(one)
        )
        return (*no_way_back, *boundless)

    def _limits(self) -> Limits:
        if self._reading.limits is None:
            raise ForbiddenHere(
                "The local policy cannot be read, so no order is accepted",
                got=self._reading.broken,
                expected=f"{self._path} as TOML that the documentation describes",
                hint="Repair the file on the endpoint; the agent reads it again by itself.",
            )
        return self._reading.limits


def paths_of(value: Any) -> Iterator[EndpointPath]:
    """Every path in parameters, however deep."""
    if isinstance(value, EndpointPath):
        yield value
    elif isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from paths_of(getattr(value, field))
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from paths_of(part)
    elif isinstance(value, tuple | list | set | frozenset):
        for part in value:
            yield from paths_of(part)


def read(path: Path) -> Reading:
    """The file as it is; broken, with the reason, if it cannot be used."""
    mark = _mark(path)
    if mark is None:
        return Reading(mark=None, digest="", limits=Limits())
    data = b""
    try:
        data = _read_own_file(path)
        return Reading(mark=mark, digest=hashlib.sha256(data).hexdigest(), limits=parse(data))
    except (OSError, Invalid) as error:
        digest = hashlib.sha256(data).hexdigest()
        return Reading(mark=mark, digest=digest, limits=None, broken=str(error))


def parse(data: bytes) -> Limits:
    """The limits that a file sets; Invalid if it is no TOML or its sections say something unknown."""
    try:
        everything = tomllib.loads(data.decode())
        sections = {name: value for name, value in everything.items() if name in Limits.model_fields}
        return Limits.model_validate(_tuples(sections))
    except ValidationError as error:
        raise invalid_fields("The local policy says something unknown", error) from None
    except (ValueError, RecursionError) as error:
        raise Invalid("The local policy is no TOML", got=error) from None


def _read_own_file(path: Path) -> bytes:
    """The bytes of a file that only its owner, root or the agent's own account, may change."""
    # Without O_NONBLOCK, a FIFO in the file's place would stop the agent.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            raise Invalid("It is no small regular file", got=f"{status.st_size} bytes", expected=MAX_FILE_BYTES)
        if status.st_uid not in {0, os.geteuid()} or mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Invalid("Others may change it", got=f"uid {status.st_uid}, mode {mode:o}", expected="root, mode 644")
        return file.read(MAX_FILE_BYTES + 1)


def _mark(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return (error.errno or 0,)
    return (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_mode, status.st_uid)


def _not_enabled(action: AnyAction, path: Path, limits: Limits) -> ForbiddenHere:
    names = ", ".join(f'"{one}"' for one in (*limits.actions.enable, action.name))
    return ForbiddenHere(
        f"The owner of this machine has not switched {action.command} on",
        got=action.name,
        expected=f"{action.name} among those that [actions] enable names",
        hint=f"On the machine, write into {path}, below [actions]: enable = [{names[:1000]}]",
    )


def _check_path(asked: EndpointPath, means: EndpointPath, forbidden: tuple[EndpointPath, ...]) -> None:
    below = is_below(means, forbidden)
    if below is not None:
        raise ForbiddenHere("The owner of this machine forbids this path", got=asked, expected=f"not below {below}")


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _tuples(value: Any) -> Any:
    """TOML has lists; frozen models want tuples."""
    if isinstance(value, dict):
        return {name: _tuples(part) for name, part in value.items()}
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
