"""ServiceItem and TaskItem: everything that is planted below a root is found, in the words of the terms."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from stanch.agent.host.items import Parts
from stanch.core.errors import ForbiddenHere
from stanch.core.ioc.terms import DOCUMENTS
from tests.agent.host.autorun_root import PASSWD, Root
from tests.agent.host.below_world import found, one, parts_of

SERVICE = """\
[Unit]
Description=Odd thing
[Service]
Type=forking
User=alice
Group=staff
ExecStartPre=-/usr/bin/before -a
ExecStart=/bin/sh /opt/thing.sh --now "a b"
[Install]
WantedBy=multi-user.target
"""
TIMER = "[Unit]\nDescription=Now and then\n[Timer]\nOnCalendar=daily\nOnBootSec=5min\n"


def sums(content: str) -> dict[str, str]:
    """Kind to hash."""
    return {kind: hashlib.new(kind, content.encode()).hexdigest() for kind in ("md5", "sha1", "sha256")}


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A machine with a service, a timer, and jobs of every kind."""
    made = Root(tmp_path)
    made.write("/etc/passwd", PASSWD)
    for name in ("/bin/sh", "/usr/bin/before", "/opt/thing.sh", "/usr/bin/job", "/etc/init.d/old"):
        made.program(name, f"#!{name}\n")
    made.write("/etc/systemd/system/odd.service", SERVICE)
    made.link("/etc/systemd/system/multi-user.target.wants/odd.service", "../odd.service")
    made.write("/etc/systemd/system/odd.timer", TIMER)
    return made


def test_a_service_is_known(root: Root) -> None:
    """All that its file says, its programs, and both spellings of its name."""
    values = one("ServiceItem", parts_of(root.folder), "odd.service")
    assert values["name"] == ("odd.service", "odd")
    assert values["descriptiveName"] == values["description"] == ("Odd thing",)
    assert values["startedAs"] == values["userName"] == ("alice",)
    assert values["groupName"] == ("staff",)
    assert values["type"] == ("forking",)
    assert values["mode"] == ("enabled",)
    assert values["status"] == ("stopped",)
    assert values["pid"] == ()
    assert values["path"] == ("/bin/sh", "/opt/thing.sh", "/usr/bin/before")
    assert values["arguments"] == ('/opt/thing.sh --now "a b"', "-a")
    assert values["reference"] == ("/etc/systemd/system/odd.service",)
    for kind, value in sums("#!/opt/thing.sh\n").items():
        assert value in values[f"path{kind}sum"]
    for kind, value in sums(SERVICE).items():
        assert values[f"{kind}sum"] == (value,)
    assert set(values) == set(DOCUMENTS["ServiceItem"])


def test_a_service_that_runs_has_processes(root: Root) -> None:
    """By the control groups."""
    root.write("/sys/fs/cgroup/system.slice/odd.service/cgroup.procs", "42\n")
    root.write("/proc/42/cgroup", "0::/system.slice/odd.service\n")
    values = one("ServiceItem", parts_of(root.folder), "odd.service", "status", "pid")
    assert values == {"status": ("running",), "pid": (42,)}


def test_masked_units_drop_ins_sockets_and_scripts(root: Root) -> None:
    """Each is an item; a drop-in has the name of its unit, and its own command."""
    root.link("/etc/systemd/system/off.service", "/dev/null")
    root.write("/etc/systemd/system/odd.service.d/more.conf", "[Service]\nExecStartPost=/tmp/evil x\n")
    root.write("/etc/systemd/system/odd.socket", "[Socket]\nListenStream=99\n")
    assert one("ServiceItem", parts_of(root.folder), "off.service")["mode"] == ("masked",)
    drop_in = one("ServiceItem", parts_of(root.folder), "odd.service: more.conf")
    assert (drop_in["name"], drop_in["path"]) == (("odd.service", "odd"), ("/tmp/evil",))
    assert one("ServiceItem", parts_of(root.folder), "odd.socket")["type"] == ("socket",)
    script = one("ServiceItem", parts_of(root.folder), "old")
    assert (script["type"], script["path"]) == (("init",), ("/etc/init.d/old",))
    assert not {"status", "pid"} & set(script)


def test_units_of_a_user(root: Root) -> None:
    """Their manager is another; whether units of all users run, nobody can tell."""
    root.write("/home/alice/.config/systemd/user/own.service", "[Service]\nExecStart=/home/alice/x\n")
    root.write("/usr/lib/systemd/user/any.service", "[Service]\nExecStart=/bin/sh\n")
    root.write("/proc/5/cgroup", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/own.service\n")
    own = one("ServiceItem", parts_of(root.folder), "own.service (alice)")
    assert (own["name"], own["pid"], own["userName"]) == (("own.service", "own"), (5,), ("alice",))
    anybody = one("ServiceItem", parts_of(root.folder), "any.service (all users)")
    assert not {"status", "pid"} & set(anybody)


def test_a_timer_is_a_task(root: Root) -> None:
    """What it starts is that of its service; its stamp says when it did last."""
    stamp = root.write("/var/lib/systemd/timers/stamp-odd.timer")
    values = one("TaskItem", parts_of(root.folder), "odd.timer")
    assert values["Name"] == ("odd.timer", "odd")
    assert values["Comment"] == ("Now and then",)
    assert values["path"] == values["ActionList/Action/ExecProgramPath"] == ("/bin/sh", "/opt/thing.sh")
    assert values["triggers/trigger/type"] == ("timer",)
    assert set(values["triggers/trigger/schedule"]) == {"OnBootSec=5min", "OnCalendar=daily"}
    assert values["MostRecentRunTime"] == (stamp.stat().st_mtime_ns // 10**9,)
    assert values["crontabPath"] == values["crontabMinute"] == ()
    assert not [item for item in found("ServiceItem", parts_of(root.folder)) if "timer" in item.name]


def test_a_line_of_cron(root: Root) -> None:
    """Each field by itself, and the program of the command."""
    root.write("/etc/crontab", "PATH=/x\nSHELL=/bin/sh\n*/5 1 2 3 4 alice /usr/bin/job -x >/dev/null\n")
    (item,) = found("TaskItem", parts_of(root.folder), *DOCUMENTS["TaskItem"])[1:]
    values = item.values
    fields = ("crontabMinute", "crontabHour", "crontabDayOfMonth", "crontabMonth", "crontabDayOfWeek")
    assert [values[one] for one in fields] == [("*/5",), ("1",), ("2",), ("3",), ("4",)]
    assert values["crontabCommand"] == ("/usr/bin/job -x >/dev/null",)
    assert values["crontabPath"] == values["reference"] == ("/etc/crontab",)
    assert values["userName"] == values["AccountName"] == ("alice",)
    assert values["path"] == ("/usr/bin/job",)
    assert values["triggers/trigger/schedule"] == ("*/5 1 2 3 4",)
    assert values["disabled"] == (False,)
    assert values["crontabEvent"] == values["crontabPeriod"] == ()
    for kind, value in sums("#!/usr/bin/job\n").items():
        assert values[f"{kind}sum"] == values[f"ActionList/Action/ExecProgram{kind.capitalize()}sum"] == (value,)
    assert item.about == {"path": "/usr/bin/job", "user": "alice"}
    assert set(values) | {"NextRunTime", "MostRecentRunTime"} == set(DOCUMENTS["TaskItem"])


def test_an_event_of_cron_in_the_tab_of_a_user(root: Root) -> None:
    """With its sign and without."""
    root.write("/var/spool/cron/crontabs/alice", "@reboot /usr/bin/job\n")
    (item,) = [one for one in found("TaskItem", parts_of(root.folder)) if one.name.startswith("alice")]
    assert item.values["crontabEvent"] == ("@reboot", "reboot")
    assert item.values["crontabMinute"] == ()
    assert item.values["triggers/trigger/schedule"] == ("@reboot",)
    assert item.values["userName"] == ("alice",)


def test_anacron_and_the_folders_of_cron(root: Root) -> None:
    """A period, a delay and a name; of a folder the period is in its name."""
    root.write("/etc/anacrontab", "SHELL=/bin/sh\n7 25 cron.odd nice /usr/bin/job\n@monthly\t45\tm\t/usr/bin/job\n")
    root.program("/etc/cron.daily/sweep")
    root.write("/etc/cron.daily/not.run", mode=0o644)
    values = one("TaskItem", parts_of(root.folder), "anacrontab: cron.odd")
    assert (values["crontabPeriod"], values["crontabDelay"]) == (("7",), (25,))
    assert (values["crontabJobIdentifier"], values["crontabCommand"]) == (("cron.odd",), ("nice /usr/bin/job",))
    assert "/usr/bin/job" in values["path"]
    assert one("TaskItem", parts_of(root.folder), "anacrontab: m")["crontabPeriod"] == ("@monthly",)
    daily = one("TaskItem", parts_of(root.folder), "cron.daily: sweep")
    assert daily["crontabPeriod"] == daily["triggers/trigger/schedule"] == ("daily",)
    assert (daily["path"], daily["disabled"]) == (("/etc/cron.daily/sweep",), (False,))
    assert one("TaskItem", parts_of(root.folder), "cron.daily: not.run")["disabled"] == (True,)


def test_an_at_job(root: Root) -> None:
    """Its name says when it will run."""
    text = "#!/bin/sh\n# atrun uid=1000 gid=1000\ncd /home/alice || {\n echo x\n exit 1\n}\n/usr/bin/job -z\n"
    root.write("/var/spool/cron/atjobs/a0002301b71f40", text)
    values = one("TaskItem", parts_of(root.folder), "at job 35")
    assert values["Name"] == ("at job 35", "a0002301b71f40")
    assert values["NextRunTime"] == (0x01B71F40 * 60,)
    assert (values["userName"], values["path"]) == (("alice",), ("/usr/bin/job",))
    assert (values["arguments"], values["triggers/trigger/type"]) == (("-z",), ("at",))


def test_nothing_is_hashed_unasked(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name costs a look at names."""

    def never(*_arguments: object, **_more: object) -> None:
        raise AssertionError("something was hashed")

    monkeypatch.setattr("stanch.agent.host.autorun_tree.Tree.hashes", never)
    assert found("ServiceItem", parts_of(root.folder), "name", "path")
    assert found("TaskItem", parts_of(root.folder), "Name", "path")


def test_what_the_owner_forbids_is_not_read(root: Root) -> None:
    """A unit that may not be read has a name; what stands in it is not known."""

    def forbid(path: str) -> None:
        if path.endswith("odd.service"):
            raise ForbiddenHere("It is forbidden")

    parts = replace(parts_of(root.folder), forbidden=forbid)
    values = one("ServiceItem", parts, "odd.service", "name", "description", "path", "md5sum", missed=[])
    assert values == {"name": ("odd.service", "odd")}


def test_of_this_machine() -> None:
    """Whatever units and jobs it has, each item is within the catalogue."""
    found(
        "ServiceItem",
        Parts(),
        *(set(DOCUMENTS["ServiceItem"]) - {"pathsha256sum", "pathsha1sum", "pathmd5sum"}),
        missed=[],
    )
    found("TaskItem", Parts(), "Name", "path", "crontabCommand", missed=[])
