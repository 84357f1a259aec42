"""Do indicators find names in /etc/hosts and in what systemd-resolved remembers?"""

import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import items_dns
from stanch.agent.host.items import Parts
from stanch.agent.host.items_dns import MONITOR, parse_dump
from stanch.core.ioc.terms import DOCUMENTS
from tests.agent.host.items_world import collect, found

HOSTS = """
# comment
203.0.113.5   bad.example.  alias   # more
2001:db8::5 bad.example
fe80::1%eth0 router
nonsense here
"""


def record(name: str, kind: int, /, **data: object) -> dict[str, object]:
    """A record as systemd-resolved tells it."""
    return {"rr": {"key": {"class": 1, "type": kind, "name": name}, **data}, "raw": "AAAA"}


LASTS = 100_000
"""Seconds that everything is remembered, counted from the start of the tests: they may take long."""


def entry(name: str, kind: int, /, *records: object, **more: object) -> dict[str, object]:
    """What is remembered of a name and type."""
    until = int((time.clock_gettime(time.CLOCK_BOOTTIME) + LASTS + 0.5) * 1e6)
    return {
        "key": {"class": 1, "type": kind, "name": name},
        "until": until,
        **({"rrs": records} if records else {}),
        **more,
    }


SERVER = {"priority": 1, "weight": 2, "port": 389, "name": "d.example"}
DUMP = {
    "parameters": {
        "dump": [
            {
                "protocol": "dns",
                "ifindex": 2,
                "cache": [
                    entry("c2.example", 1, record("c2.example", 1, address=[203, 0, 113, 9])),
                    entry("c2.example", 28, record("c2.example", 28, address=[0x20, 1, 0xD, 0xB8, *[0] * 11, 9])),
                    entry("www.example", 5, record("www.example", 5, name="c2.example")),
                    entry("example", 15, record("example", 15, priority=10, exchange="mail.example")),
                    entry("example", 16, record("example", 16, items=["v=spf1 \\303\\244", "b"])),
                    entry("_x._tcp.example", 33, record("_x._tcp.example", 33, **SERVER)),
                    entry("gone.example", 255, type="NXDOMAIN"),
                    entry("empty.example", 28, rrs=[]),
                    entry("odd.example", 1, record("odd.example", 1, address=[1, 2])),
                    {"key": None},
                    7,
                ],
            }
        ]
    }
}  # fmt: skip


@contextmanager
def resolved(root, *answers: bytes):
    """A systemd-resolved that gives these bytes, and then hangs up; what it was asked."""
    path = root / MONITOR
    path.parent.mkdir(parents=True)
    asked = []

    def work() -> None:
        line, _ = listener.accept()
        with line:
            asked.append(line.recv(65_536))
            with suppress(OSError):  # whoever asked has heard enough
                for answer in answers:
                    line.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=work)
        thread.start()
        yield asked
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def root():
    """A system with some hosts, in a folder of so short a name that a socket fits below it."""
    with TemporaryDirectory() as folder:
        made = Path(folder)
        (made / "etc").mkdir()
        (made / "etc/hosts").write_text(HOSTS)
        yield made


async def names(root, *terms) -> list[str]:
    """What is found there."""
    return [item.name for item in await found(*terms, parts=Parts(root=root))]


async def test_names_in_hosts_are_found(root):
    """Each name of a line, with the address of its own line only."""
    four = ("DnsEntryItem/RecordData/IPv4Address", "is", "203.0.113.5")
    assert await names(root, four, ("DnsEntryItem/Host", "is", "bad.example")) == ["bad.example A in /etc/hosts"]
    assert await names(root, four, ("DnsEntryItem/RecordName", "is", "ALIAS")) == ["alias A in /etc/hosts"]
    six = ("DnsEntryItem/RecordData/IPv6Address", "is", "2001:db8:0::5")
    assert await names(root, six) == ["bad.example AAAA in /etc/hosts"]
    assert await names(root, four, six) == []
    assert await names(root, ("DnsEntryItem/Host", "is", "router")) == ["router AAAA in /etc/hosts"]
    assert await names(root, ("DnsEntryItem/Host", "is", "here")) == []


async def test_what_systemd_resolved_remembers_is_found(root):
    """Records of every kind, the answers that were `no` too; and it is asked nothing but what it remembers."""
    wanted = {
        "c2.example A": [("RecordData/IPv4Address", "203.0.113.9"), ("DataLength", 4)],
        "c2.example AAAA": [("RecordData/IPv6Address", "2001:db8::9"), ("DataLength", 16)],
        "www.example CNAME": [("RecordData/Host", "c2.example"), ("Host", "www.example")],
        "example MX": [("RecordData/MxHost", "mail.example"), ("RecordData/Preference", 10)],
        "example TXT": [("RecordData/String", "v=spf1 ä"), ("RecordData/String", "b")],
        "_x._tcp.example SRV": [
            ("RecordData/TargetHost", "d.example"),
            ("RecordData/Port", 389),
            ("RecordData/Priority", 1),
            ("RecordData/Weight", 2),
        ],
        "gone.example ANY": [("RecordData/Error", "NXDOMAIN")],
        "empty.example AAAA": [("RecordData/Error", "NODATA")],
        "odd.example A": [("RecordName", "odd.example")],
    }
    answer = json.dumps(DUMP).encode() + b"\0"
    with resolved(root, answer[:100], answer[100:]) as asked:
        items = await collect("DnsEntryItem", parts=Parts(root=root))
    there = {one.name.removesuffix(" in systemd-resolved"): one for one in items if "resolved" in one.name}
    assert there.keys() == wanted.keys()
    for name, terms in wanted.items():
        for path, value in terms:
            assert value in there[name].values[path]
        assert there[name].values["TimeToLive"][0] in range(LASTS - 10_000, LASTS + 1)
    assert there["odd.example A"].values["RecordData/IPv4Address"] == ()
    assert json.loads(asked[0].rstrip(b"\0"))["method"] == "io.systemd.Resolve.Monitor.DumpCache"
    assert all(one.values.keys() == DOCUMENTS["DnsEntryItem"].keys() for one in items)
    assert {path for one in items for path, value in one.values.items() if value} == DOCUMENTS["DnsEntryItem"].keys()


@pytest.mark.parametrize(
    "answer",
    [b"", b"{", b"nonsense\0", b'{"error":"no"}\0', b'{"parameters":[1]}\0', b"[" * 100_000 + b"\0", b"\xff\0"],
)
async def test_an_answer_that_makes_no_sense_is_none(root, answer):
    """The hosts are told all the same."""
    with resolved(root, answer):
        items = await collect("DnsEntryItem", parts=Parts(root=root))
    assert len(items) == 4


async def test_an_answer_that_never_ends_is_cut_off(root, monkeypatch):
    """It may be only so long."""
    monkeypatch.setattr(items_dns, "MAX_REPLY", 1000)
    with resolved(root, b"x" * 100_000 + b"\0"):
        assert len(await collect("DnsEntryItem", parts=Parts(root=root))) == 4


async def test_who_says_nothing_is_not_waited_for(root, monkeypatch):
    """A silent daemon costs some seconds, not the scan."""
    monkeypatch.setattr(items_dns, "PATIENCE", 0.1)
    path = root / MONITOR
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        assert len(await collect("DnsEntryItem", parts=Parts(root=root))) == 4


async def test_long_lists_and_odd_bytes_are_read(root):
    """A line that is too long, a name that is no text, and ten thousand others."""
    (root / "etc/hosts").write_bytes(b"0.0.0.0 " + b"x" * 5000 + b"\n192.0.2.1 odd\xff\n" + b"192.0.2.2 a\n" * 10_000)
    items = await collect("DnsEntryItem", parts=Parts(root=root))
    assert len(items) > 10_000
    (odd,) = [one for one in items if one.values["RecordData/IPv4Address"] == ("192.0.2.1",)]
    assert os.fsencode(odd.values["Host"][0]) == b"odd\xff"


async def test_a_pipe_in_place_of_the_hosts_stops_nobody(root):
    """It is no file, and has no names."""
    (root / "etc/hosts").unlink()
    os.mkfifo(root / "etc/hosts")
    assert await collect("DnsEntryItem", parts=Parts(root=root)) == []


async def test_nothing_is_known_without_hosts_and_cache(tmp_path):
    """There is no item, and no error."""
    assert await collect("DnsEntryItem", parts=Parts(root=tmp_path)) == []


KEYS = ("parameters", "dump", "cache", "key", "rrs", "rr", "name", "type", "address", "items", "until")
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(KEYS), inner
    ),
)  # fmt: skip


@given(junk)
def test_whatever_is_answered_is_read_or_passed_over(answer):
    """Any JSON in the place of any part raises nothing."""
    for place in (
        answer,
        {"parameters": {"dump": [{"cache": [answer]}]}},
        {"parameters": {"dump": [{"cache": answer}]}},
    ):
        for values in parse_dump(json.dumps(place).encode()):
            assert values.keys() == DOCUMENTS["DnsEntryItem"].keys() | values.keys()
