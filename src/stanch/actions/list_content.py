"""List the rules and indicators that an endpoint has to scan with."""

from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Params, Result, Risk, action
from stanch.core.content import MAX_PACKS, ContentName, Installed
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.scanning import Engine
from stanch.core.types import Text, minutes

MAX_LISTED = 2 * MAX_PACKS


class ListContent(Params):
    """Nothing: all of it is listed."""


class Awaited(Model):
    """A version that the server wants here, and that is not in use."""

    name: ContentName
    """What it is called."""

    version: Annotated[int, Field(ge=1, le=2**31)]
    """Which version."""


class ContentListed(Result):
    """What scans can use."""

    content: Annotated[tuple[Installed, ...], Field(max_length=MAX_LISTED)]
    """Rules and indicators; what comes with the agent first."""

    awaited: Annotated[tuple[Awaited, ...], Field(max_length=MAX_LISTED)]
    """What is published for it and not in use yet, or was refused: `update-content` tells why."""

    clamav: Text
    """The version of ClamAV, which malware scans ask too; empty where its daemon does not answer."""


@action(
    "list_content",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    time_limit=minutes(5),
    examples=("web-01 --wait", "--label env=prod --wait --json"),
)
async def list_content(host: Host, _params: ListContent) -> ContentListed:
    """List the rules and indicators that an endpoint has to scan with, and what it still waits for.

    Each with its version, hash, how many rules count, and since when scans use it.
    """
    installed = tuple(host.content.installed())[:MAX_LISTED]
    here = {(one.name, one.sha256, one.version) for one in installed}
    awaited = [one for one in host.content.wanted() if (one.name, one.sha256, one.version) not in here]
    return ContentListed(
        content=installed,
        awaited=tuple(Awaited(name=one.name, version=one.version) for one in awaited[:MAX_LISTED]),
        clamav=(await host.scanner.engines()).get(Engine.CLAMAV, ""),
    )
