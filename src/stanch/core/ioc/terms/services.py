"""Terms of what starts by itself: ServiceItem, TaskItem.

The official list has them for Windows and macOS mostly; units of systemd, scripts of init, cron, anacron, at and timers
are put in its words. What has two spellings among people (`ssh.service` and `ssh`) has both as values.
"""

from collections.abc import Mapping

from stanch.core.ioc.items import Cost, Kind, Supported

_TEXT, _HASH = Kind.STRING, Kind.HASH

SERVICES: Mapping[str, Mapping[str, Supported]] = {
    "ServiceItem": {
        "name": Supported(_TEXT, "the unit, with and without `.service`; the script of init"),
        "descriptiveName": Supported(_TEXT, "what the unit says that it is (Description=)"),
        "description": Supported(_TEXT, "the same"),
        "mode": Supported(_TEXT, "enabled, disabled or masked"),
        "status": Supported(_TEXT, "running or stopped, by the control groups; of units only"),
        "startedAs": Supported(_TEXT, "the user as whom it runs"),
        "userName": Supported(_TEXT, "the same"),
        "groupName": Supported(_TEXT, "the group that the unit names (Group=)"),
        "path": Supported(_TEXT, "the program that it starts"),
        "arguments": Supported(_TEXT, "what stands behind the program"),
        "type": Supported(_TEXT, "Type= of a service (simple if it says nothing); else socket, path, mount, ..., init"),
        "pid": Supported(Kind.INT, "each of its processes, by the control groups; of units only", Cost.LOOKUP),
        "reference": Supported(_TEXT, "the file that says so"),
        "pathmd5sum": Supported(_HASH, "MD5 of the program", Cost.READ),
        "pathsha1sum": Supported(_HASH, "SHA-1 of the program", Cost.READ),
        "pathsha256sum": Supported(_HASH, "SHA-256 of the program", Cost.READ),
        "md5sum": Supported(_HASH, "MD5 of the file that says so", Cost.READ),
        "sha1sum": Supported(_HASH, "SHA-1 of the file that says so", Cost.READ),
        "sha256sum": Supported(_HASH, "SHA-256 of the file that says so", Cost.READ),
    },
    "TaskItem": {
        "Name": Supported(_TEXT, "the timer, with and without `.timer`; the file and its schedule of cron; the at job"),
        "path": Supported(_TEXT, "the program that it starts"),
        "arguments": Supported(_TEXT, "what stands behind the program"),
        "userName": Supported(_TEXT, "the user as whom it runs"),
        "AccountName": Supported(_TEXT, "the same"),
        "Creator": Supported(_TEXT, "who owns the file that says so"),
        "Comment": Supported(_TEXT, "what a timer says that it is (Description=)"),
        "disabled": Supported(Kind.BOOL, "does it not start at the next occasion?"),
        "reference": Supported(_TEXT, "the file that says so"),
        "triggers/trigger/type": Supported(_TEXT, "cron, anacron, at or timer"),
        "triggers/trigger/schedule": Supported(
            _TEXT, "when, in its own words: `*/5 * * * *`, `@reboot`, `OnCalendar=`"
        ),
        "MostRecentRunTime": Supported(
            Kind.DATE, "when a timer ran last, where systemd keeps that (Persistent=)", Cost.LOOKUP
        ),
        "NextRunTime": Supported(Kind.DATE, "when an at job will run"),
        "ActionList/Action/ExecProgramPath": Supported(_TEXT, "as path"),
        "ActionList/Action/ExecArguments": Supported(_TEXT, "as arguments"),
        "ActionList/Action/ExecProgramMd5sum": Supported(_HASH, "as md5sum", Cost.READ),
        "ActionList/Action/ExecProgramSha1sum": Supported(_HASH, "as sha1sum", Cost.READ),
        "ActionList/Action/ExecProgramSha256sum": Supported(_HASH, "as sha256sum", Cost.READ),
        "crontabPath": Supported(_TEXT, "the crontab, the anacrontab, or the program in a folder such as cron.daily"),
        "crontabMinute": Supported(_TEXT, "the first field of a line of cron"),
        "crontabHour": Supported(_TEXT, "the second"),
        "crontabDayOfMonth": Supported(_TEXT, "the third"),
        "crontabMonth": Supported(_TEXT, "the fourth"),
        "crontabDayOfWeek": Supported(_TEXT, "the fifth"),
        "crontabEvent": Supported(_TEXT, "what stands instead of them, with the sign and without: @reboot, reboot"),
        "crontabCommand": Supported(_TEXT, "the command, as it stands there"),
        "crontabPeriod": Supported(_TEXT, "of anacron: every so many days; of a folder: hourly, daily, ..."),
        "crontabDelay": Supported(Kind.INT, "of anacron: minutes"),
        "crontabJobIdentifier": Supported(_TEXT, "of anacron"),
        "md5sum": Supported(_HASH, "MD5 of the program", Cost.READ),
        "sha1sum": Supported(_HASH, "SHA-1 of the program", Cost.READ),
        "sha256sum": Supported(_HASH, "SHA-256 of the program", Cost.READ),
    },
}
"""Document to path to what it is here."""
