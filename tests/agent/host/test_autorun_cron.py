"""Is every job told that cron, anacron or at would start, as whom, and nothing else?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.autorun_cron import CronReader, Job, at_commands, parse_job
from stanch.core.autoruns import Place, disabled_line
from tests.agent.host.autorun_root import new_root


@pytest.fixture
def root(tmp_path):
    """A machine."""
    return new_root(tmp_path)


@pytest.mark.parametrize(
    ("text", "has_user", "job"),
    [
        ("*/5 * * * * root /opt/x  --a", True, Job("*/5 * * * *", "root", "/opt/x  --a")),
        ("*/5\t*\t*\t*\t*\troot\t/opt/x", True, Job("*/5 * * * *", "root", "/opt/x")),
        ("  0 3 * * 0 /opt/x", False, Job("0 3 * * 0", "", "/opt/x")),
        ("@reboot root /opt/x", True, Job("@reboot", "root", "/opt/x")),
        ("@reboot /opt/x", False, Job("@reboot", "", "/opt/x")),
        ("-0 1 * * * root /opt/x", True, Job("-0 1 * * *", "root", "/opt/x")),
        ("0 1 * * * A=1 /opt/x", False, Job("0 1 * * *", "", "A=1 /opt/x")),
        ("PATH=/bin:/tmp", True, None),
        ("'MY NAME' = x", False, None),
        ("# 0 1 * * * root x", True, None),
        ("", True, None),
        ("0 1 * * *", False, None),
        ("0 1 * * * root", True, None),
        ("@reboot", False, None),
        ("rubbish", True, None),
    ],
)
def test_a_line_of_a_crontab_is_read(text, has_user, job):
    """Times or a nickname, a user in the system's tabs, the command as it is."""
    assert parse_job(text, has_user=has_user) == job


FIELD = st.from_regex(r"[0-9*/,-]{1,6}", fullmatch=True).filter(lambda one: not one.startswith("-"))
WORD = st.from_regex(r"[A-Za-z0-9/._-]{1,10}", fullmatch=True)


@given(
    st.lists(FIELD, min_size=5, max_size=5),
    WORD,
    st.lists(WORD, min_size=1, max_size=5),
    st.sampled_from([" ", "\t", "  "]),
)
def test_what_is_written_is_read(times, user, words, space):
    """With any spaces between."""
    line = space.join([*times, user, " ".join(words)])
    assert parse_job(line, has_user=True) == Job(" ".join(times), user, " ".join(words))


@given(st.text(max_size=300), st.booleans())
def test_any_text_is_a_job_or_none(text, has_user):
    """A job has a command."""
    found = parse_job(text, has_user=has_user)
    assert found is None or found.command


def test_every_tab_is_read(root):
    """The system's with a user in each line, the users' by the name of the file, root's own among them."""
    root.write("/etc/crontab", "SHELL=/bin/sh\n17 * * * * root /opt/a\n")
    root.write("/etc/cron.d/job", "MAILTO=x\n@reboot alice /opt/b\n")
    root.write("/etc/cron.d/job.dpkg-old", "@reboot alice /opt/none\n")
    root.write("/var/spool/cron/crontabs/alice", "* * * * * /opt/c\n")
    root.write("/var/spool/cron/root", "* * * * * /opt/d\n")
    found = [(one.path, one.line, one.starts, one.user) for one in root.items(CronReader(), Place.CRON)]
    assert found == [
        ("/etc/crontab", 1, "-", ""),
        ("/etc/crontab", 2, "/opt/a", "root"),
        ("/etc/cron.d/job", 2, "/opt/b", "alice"),
        ("/var/spool/cron/crontabs/alice", 1, "/opt/c", "alice"),
        ("/var/spool/cron/root", 1, "/opt/d", "root"),
    ]


def test_a_disabled_job_is_told_with_its_task(root):
    """Other comments are not."""
    root.write("/etc/crontab", disabled_line("tsk_9", "17 * * * * root /opt/a") + "\n# 17 * * * * root /opt/b\n")
    assert [(one.starts, one.enabled, one.disabled_by) for one in root.items(CronReader())] == [
        ("/opt/a", False, "tsk_9"),
    ]


def test_a_setting_that_preloads_is_told(root):
    """It changes what every job below it is."""
    root.write("/etc/cron.d/x", "LD_PRELOAD=/tmp/x.so\nMAILTO=root\n")
    assert [one.line for one in root.items(CronReader())] == [1]


def test_programs_of_run_parts_are_told(root):
    """Those that may not be executed, or that run-parts passes over, are off."""
    root.program("/etc/cron.daily/run")
    root.write("/etc/cron.daily/not")
    root.program("/etc/cron.hourly/odd name")
    root.write("/etc/cron.hourly/.placeholder")
    root.program("/opt/x")
    root.link("/etc/cron.weekly/link", "/opt/x")
    found = {one.name: (one.program, one.enabled) for one in root.items(CronReader(), Place.CRON)}
    assert found == {
        "cron.daily: run": ("/etc/cron.daily/run", True),
        "cron.daily: not": ("/etc/cron.daily/not", False),
        "cron.hourly: odd name": ("/etc/cron.hourly/odd name", False),
        "cron.weekly: link": ("/etc/cron.weekly/link", True),
    }


def test_anacron_is_read(root):
    """Days, delay, name, command."""
    root.write("/etc/anacrontab", "SHELL=/bin/sh\n1 5 cron.daily nice run-parts /etc/cron.daily\n@monthly 9 m /opt/m\n")
    assert [(one.name, one.starts) for one in root.items(CronReader())] == [
        ("anacrontab: cron.daily", "nice run-parts /etc/cron.daily"),
        ("anacrontab: m", "/opt/m"),
    ]


AT = """\
#!/bin/sh
# atrun uid=1000 gid=1000
# mail alice 0
umask 22
HOME=/home/alice; export HOME
cd /home/alice || {
\t echo 'Execution directory inaccessible' >&2
\t exit 1
}
/opt/x --now
/opt/y
"""


def test_at_jobs_are_told_without_the_environment_before_them(root):
    """As the user that they name."""
    root.write("/var/spool/cron/atjobs/a0000201bd4f30", AT)
    root.write("/var/spool/cron/atjobs/.SEQ", "2")
    found = root.items(CronReader(), Place.AT)
    assert [(one.name, one.command, one.user) for one in found] == [("at job 2", "/opt/x --now; /opt/y", "alice")]


@pytest.mark.parametrize("hidden", ["cd /tmp; /opt/x", "A=1 /opt/x", "export A; /opt/x", "echo 'Execution'; /opt/x"])
def test_no_command_of_an_at_job_looks_like_its_environment(hidden):
    """Neither behind the environment, nor in a job that at did not write."""
    assert at_commands([*AT.splitlines(), hidden]).endswith(hidden)
    assert at_commands(["# comment", "", hidden]) == hidden


def test_hostile_tabs_end(root):
    """Pipes, odd bytes, links out of the root and lines without an end."""
    root.fifo("/etc/cron.d/pipe")
    root.link("/etc/cron.d/out", "/../../../../etc/hostname")
    root.write("/etc/cron.d/odd", b"* * * * * root /opt/\xff\xfe\n\x00\n")
    root.write("/etc/cron.d/wide", "* " * 500_000)
    found, unread = root.read(CronReader())
    assert "* * * * * /opt/\udcff\udcfe" in [one.command for one in found]
    assert {one.path for one in unread} == {"/etc/cron.d/pipe", "/etc/cron.d/wide"}
