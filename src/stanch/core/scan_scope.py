"""The parameters that every scan action has: where it looks, with what, and how gently."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated

from pydantic import Field

from stanch.core.action import Params, Plan, Step
from stanch.core.content import ContentKind, ContentName
from stanch.core.content_kind import HEAD, kind_of
from stanch.core.errors import Invalid
from stanch.core.host import Host
from stanch.core.scanning import Area, Files, Limits, Material
from stanch.core.types import EndpointPath, Exclusion, Size, Upload

LARGEST = Size(256 * 2**20)
"""What is read of files unless the order says otherwise; larger ones are skipped, and told."""


class Gently(Params):
    """How it goes about it."""

    gentle: bool = True
    """Stay behind: low priority, and wait while others need processor, memory or disk."""

    cache: bool = True
    """Believe what an earlier scan found out about files that did not change since."""

    max_findings: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """End, incomplete, when so many are found."""


class Scope(Gently):
    """Where files are looked at."""

    area: Area | None = None
    """all local file systems (if nothing is said), system, critical, or custom: what --path names."""

    path: Annotated[tuple[EndpointPath, ...], Field(max_length=1000)] = ()
    """Folders and files to look at, with everything below."""

    exclude: Annotated[tuple[Exclusion, ...], Field(max_length=1000)] = ()
    """What to leave out, with everything below: a path, or a pattern with `*` and `?` within a name, `**` across
    folders."""

    max_file_size: Annotated[Size, Field(ge=1, le=2**50)] = LARGEST
    """Skip larger files, and tell them."""

    network_drives: bool = False
    """Look at file systems of the network, too: they may be slow, and shared by many endpoints."""

    one_file_system: bool = False
    """Do not look at what is mounted below."""

    def refuse_places(self, why: str) -> None:
        """Invalid if the order names places of files, though no files are looked at: they would be ignored."""
        named = [f"--path {one}" for one in self.path[:1]] + ([f"--area {self.area}"] if self.area else [])
        if named:
            raise Invalid("No files are looked at, but places of files are named", got=f"{' '.join(named)} {why}")

    def files(self, default: Area) -> Files:
        """As the scanner wants it; Invalid if area and path do not fit."""
        area = self.area or (Area.CUSTOM if self.path else default)
        if (area is Area.CUSTOM) != bool(self.path):
            raise Invalid(
                "The area and the paths do not fit",
                got=f"--area {area} {'with' if self.path else 'without'} --path",
                expected="--path alone or with --area custom; another area without --path",
            )
        return Files(
            area=area,
            paths=self.path,
            exclude=self.exclude,
            max_size=self.max_file_size,
            network=self.network_drives,
            one_file_system=self.one_file_system,
        )

    @property
    def limits(self) -> Limits:
        """What it may cost."""
        return Limits(findings=self.max_findings, gentle=self.gentle)


Uploaded = Annotated[tuple[Upload, ...], Field(max_length=200)]
Named = Annotated[tuple[ContentName, ...], Field(max_length=100)]


async def materials_of(
    host: Host, uploads: Sequence[Upload], names: Sequence[str], kinds: Collection[ContentKind]
) -> tuple[Material, ...]:
    """Uploaded files and published content; Invalid for what is of another kind, NotFound for what is not here."""
    published = host.content.materials(names) if names else ()
    wrong = next((one for one in published if one.kind not in kinds), None)
    if wrong is not None:
        raise _unfit(wrong.name, wrong.kind, kinds)
    return (*[await _uploaded(host, one, kinds) for one in uploads], *published)


async def _uploaded(host: Host, upload: Upload, kinds: Collection[ContentKind]) -> Material:
    async with host.uploads.open(upload) as content:
        kind = kind_of(await content.read(0, min(content.size, HEAD)))
    if kind is None or kind not in kinds:
        raise _unfit(upload.name or upload.id, kind, kinds)
    opened = partial(host.uploads.open, upload)
    return Material(kind=kind, name=upload.name or upload.id, size=upload.size, sha256=upload.sha256, open=opened)


def planned_materials(
    host: Host, uploads: Sequence[Upload], names: Sequence[str], kinds: Collection[ContentKind]
) -> tuple[Step, ...]:
    """What a scan would use, for a dry run: nothing is uploaded for one, so what is in the files is not known yet."""
    published = host.content.materials(names) if names else ()
    wrong = next((one for one in published if one.kind not in kinds), None)
    if wrong is not None:
        raise _unfit(wrong.name, wrong.kind, kinds)
    what = "Use the uploaded file, once it is checked"
    return (
        *(Step(what=what, target=f"{one.name or one.id} ({one.size} bytes)") for one in uploads),
        *(_use(one) for one in published),
    )


def _use(one: Material) -> Step:
    return Step(what=f"Use {one.kind}", target=one.name[:4000])


def _unfit(name: str, kind: ContentKind | None, kinds: Collection[ContentKind]) -> Invalid:
    return Invalid(
        f"{name} is nothing that this scan can use",
        got=_SAID.get(kind, kind) if kind else "a file that is neither rules nor indicators",
        expected=said(kinds),
        hint=_INSTEAD.get(kind, _CHECK) if kind else _CHECK,
    )


def said(kinds: Collection[ContentKind]) -> str:
    """Kinds of content, in words."""
    return " or ".join(_SAID[one] for one in ContentKind if one in kinds)


_SAID: Mapping[ContentKind, str] = {
    ContentKind.YARA: "YARA rules",
    ContentKind.OPENIOC: "OpenIOC indicators",
    ContentKind.STIX: "a STIX bundle",
    ContentKind.HASHES: "a list of hashes",
}
_CHECK = "`stanch ioc check FILE` tells what is wrong with indicators, `stanch yara scan` with rules."
_INSTEAD: Mapping[ContentKind, str] = {
    ContentKind.YARA: "Rules are for yara-scan or malware-scan.",
    ContentKind.OPENIOC: "Indicators are for ioc-scan.",
    ContentKind.STIX: "Indicators are for ioc-scan.",
    ContentKind.HASHES: "Lists of hashes are for ioc-scan or malware-scan.",
}


def planned(files: Files | None, materials: Sequence[Material | Step], *, more: Sequence[str] = ()) -> Plan:
    """What a scan would look at, and with what."""
    steps = [one if isinstance(one, Step) else _use(one) for one in materials[:5000]]
    if files is not None:
        steps += [
            Step(what="Look at files", target=str(one))
            for one in files.paths or (f"area {files.area}: {_AREAS[files.area]}",)
        ]
        steps += [Step(what="Leave out", target=str(one)) for one in files.exclude]
    steps += [Step(what="Look at", target=one) for one in more]
    return Plan(changes=False, steps=tuple(steps[:10_000]), warnings=tuple(_warnings(files)))


def _warnings(files: Files | None) -> Iterator[str]:
    if files is not None and files.network:
        yield "File systems of the network are looked at, too."
    if files is not None and files.area is Area.ALL:
        yield "Every local file system is looked at, which may take hours; --path or --area narrows it."


_AREAS: Mapping[Area, str] = {
    Area.ALL: "every local file system",
    Area.SYSTEM: "programs, libraries, configuration, temporary folders, homes",
    Area.CRITICAL: "what starts by itself, what runs and its libraries, kernel modules, boot files",
    Area.CUSTOM: "nothing",
}
