"""Everything that list-autoruns finds, disabled and enabled again: with the real files, the real vault, the actions."""

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from stanch.actions.disable_autorun import DisableAutorun, EnableAutorun, disable_autorun, enable_autorun
from stanch.agent.host.autoruns import LinuxAutoruns
from stanch.core.action import Verdict
from stanch.core.autoruns import Autorun, Place
from stanch.core.files import FileInfo
from stanch.core.host import Host
from stanch.core.types import EndpointPath
from stanch.core.vault import Item, Returned, Returning, Taking
from tests.agent.host.autorun_root import Root, new_root
from tests.agent.host.test_autoruns import FILES
from tests.agent.host.vault_world import World, portrait
from tests.fakes.host import FakeEndpoint

MORE = {
    "/usr/lib/systemd/system/cups.service": "[Service]\nExecStart=/opt/x\n",
    "/etc/systemd/system/cups.service.d/evil.conf": "[Service]\nExecStartPre=/opt/x\n",
    "/home/alice/.config/systemd/user/mine.service": "[Service]\nExecStart=/opt/x\n",
    "/etc/crontab": "PATH=/bin\r\n@daily root /opt/x\r\n@hourly root /opt/\udcff\n@daily root /opt/x\r\n",
    "/var/spool/cron/crontabs/alice": "* * * * * /opt/x",
    "/home/alice/.ssh/authorized_keys": "ssh-rsa AAAA one\nssh-rsa BBBB two",
    "/etc/sudoers.d/evil": "alice ALL=(ALL) NOPASSWD: \\\n  /opt/x\n",
    "/usr/lib/udev/rules.d/99-x.rules": 'ACTION=="add", RUN+="/opt/x"\n',
    "/usr/lib/systemd/system-generators/x": "#!/bin/sh\n",
    "/etc/apt/apt.conf.d/99x": 'APT::Update::Pre-Invoke {"/opt/x"};\n',
    "/opt/x": "#!/bin/sh\n",
}


@dataclass
class Below:
    """The real vault and files, for paths below a root: what a machine is to its agent, the root is to this one."""

    root: Path
    world: World

    def _real(self, path: EndpointPath) -> EndpointPath:
        return EndpointPath.of(os.fsencode(self.root) + path.raw)

    async def take(self, taking: Taking) -> Item:
        return await self.world.vault.take(replace(taking, path=self._real(taking.path)))

    async def put_back(self, returning: Returning) -> Returned:
        return await self.world.vault.put_back(returning)

    async def find(self, id: str) -> Item | None:  # noqa: A002 - the field's own name
        return await self.world.vault.find(id)

    async def remove(self, id: str) -> bool:  # noqa: A002 - the field's own name
        return await self.world.vault.remove(id)

    async def why_protected(self, path: EndpointPath) -> str | None:
        return None

    async def look(self, path: EndpointPath) -> FileInfo | None:
        return FakeEndpoint().files.info_of(FakeEndpoint().files.add("/x")) if self._is_there(path) else None

    def _is_there(self, path: EndpointPath) -> bool:
        return os.path.lexists(self._real(path).raw)


@pytest.fixture
def machine(tmp_path: Path) -> Root:
    """A machine on which something of every kind starts by itself."""
    root = new_root(tmp_path / "machine")
    for path, text in [*FILES.values(), *MORE.items()]:
        root.write(path, text, mode=0o750)
    root.link("/etc/systemd/system/multi-user.target.wants/evil.service", "/etc/systemd/system/evil.service")
    root.link("/etc/systemd/system/linked.service", "/opt/linked.service")
    root.write("/opt/linked.service", "[Service]\nExecStart=/opt/x\n")
    for folder in ("system", "system-generators"):
        root.at(f"/etc/systemd/{folder}").mkdir(exist_ok=True)
    root.at("/etc/systemd/user").mkdir()
    root.write("/dev/null", mode=0o666)
    return root


@pytest.fixture
def host(machine: Root, tmp_path: Path) -> Callable[[str], Host]:
    """The machine in the hands of a task."""
    endpoint = FakeEndpoint()
    below: Any = Below(machine.folder, World(tmp_path))
    autoruns = LinuxAutoruns(root=machine.folder)

    def of(task: str) -> Host:
        endpoint.next_task(task)
        return replace(endpoint.host, autoruns=autoruns, vault=below, files=below)

    return of


def everything(root: Root) -> dict[str, object]:
    """All that is below the root, but what folders say of their own times."""
    found = sorted(root.folder.rglob("*"))
    return {str(one): portrait(one) for one in found if one.is_symlink() or not one.is_dir()}


async def starting(host: Host) -> AsyncIterator[Autorun]:
    """What starts by itself now."""
    async for batch in host.autoruns.list(tuple(Place)):
        for one in batch:
            if isinstance(one, Autorun):
                yield one


async def test_everything_that_is_found_is_disabled_and_comes_back(machine: Root, host: Callable[[str], Host]) -> None:
    """Each autorun of every place: afterwards it does not start, and enabled, each file is as it was to the byte."""
    places = set[Place]()
    refused = set[Place]()
    ones = [one async for one in starting(host("tsk_0"))]
    for n, one in enumerate(ones):
        if await host("tsk_0").autoruns.why_not(one):
            refused.add(one.place)
            continue
        before, params = everything(machine), DisableAutorun(autorun=(one.id,))
        here = host(f"tsk_a{n}")
        result = await disable_autorun.run(here, params)
        assert (await disable_autorun.verify(here, params, result)).verdict is Verdict.IN_PLACE, one
        assert everything(machine) != before
        now = await here.autoruns.find(one.id)
        assert now is None or not now.enabled, now
        await enable_autorun.run(host(f"tsk_b{n}"), EnableAutorun(autorun=(one.id,)))
        assert everything(machine) == before, one
        places.add(one.place)
    assert refused == {Place.KERNEL}
    assert places == set(Place) - refused


async def test_all_at_once(machine: Root, host: Callable[[str], Host]) -> None:
    """Everything in one order, and back in one."""
    before = everything(machine)
    here = host("tsk_1")
    ones = [one async for one in starting(here) if not await here.autoruns.why_not(one)]
    result = await disable_autorun.run(here, DisableAutorun(autorun=tuple(one.id for one in ones)[:50]))
    assert not result.not_disabled
    back = await enable_autorun.run(host("tsk_2"), EnableAutorun(all=True))
    assert not back.not_enabled
    assert everything(machine) == before
