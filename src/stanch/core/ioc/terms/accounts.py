"""Terms of people: UserItem, GroupItem, LoginHistoryItem, ShellHistoryItem.

Accounts and groups are those of /etc/passwd and /etc/group; who is in a directory service only is no item.
"""

from collections.abc import Mapping

from stanch.core.ioc.items import Cost, Kind, Supported

_TEXT = Kind.STRING

ACCOUNTS: Mapping[str, Mapping[str, Supported]] = {
    "UserItem": {
        "Username": Supported(_TEXT, "the name of the account"),
        "fullname": Supported(_TEXT, "the name of the person: the first part of the comment in /etc/passwd"),
        "description": Supported(_TEXT, "the whole comment in /etc/passwd"),
        "userid": Supported(Kind.INT, "its number (uid)"),
        "SecurityID": Supported(_TEXT, "the same, as text"),
        "homedirectory": Supported(_TEXT, "its home"),
        "shell": Supported(_TEXT, "its shell"),
        "grouplist/groupname": Supported(_TEXT, "each group that it is in, its own first", Cost.LOOKUP),
        "disabled": Supported(
            Kind.BOOL, "has it expired, or a shell that lets nobody in (nologin, false)?", Cost.LOOKUP
        ),
        "lockedout": Supported(Kind.BOOL, "does no password fit? Keys may let somebody in all the same", Cost.LOOKUP),
        "passwordrequired": Supported(Kind.BOOL, "false if it is open without a password", Cost.LOOKUP),
        "userpasswordage": Supported(Kind.DURATION, "since its password was changed", Cost.LOOKUP),
        "LastLogin": Supported(Kind.DATE, "by lastlog, or what has taken its place", Cost.LOOKUP),
    },
    "GroupItem": {
        "GroupName": Supported(_TEXT, "its name"),
        "gid": Supported(Kind.INT, "its number"),
        "userlist/username": Supported(_TEXT, "each of its members, also those whose own group it is", Cost.LOOKUP),
    },
    "LoginHistoryItem": {
        "Path": Supported(_TEXT, "the file that says so: wtmp, btmp, utmp, those put aside (wtmp.1), wtmp.db"),
        "RecordType": Supported(_TEXT, "as in utmp(5): USER_PROCESS, LOGIN_PROCESS, DEAD_PROCESS, BOOT_TIME, ..."),
        "Username": Supported(_TEXT, "who; `reboot` and the like in records of the machine"),
        "StartTime": Supported(Kind.DATE, "when"),
        "EndTime": Supported(Kind.DATE, "when a session ended, by a later record of the same file"),
        "SessionLength": Supported(Kind.DURATION, "from then to then"),
        "Hostname": Supported(_TEXT, "from where, as the program that let them in has it"),
        "IPv4Address": Supported(Kind.IP, "the same as an address"),
        "IPv6Address": Supported(Kind.IP, "the same as an address"),
        "IsRemoteLogin": Supported(Kind.BOOL, "is it from elsewhere?"),
        "IsFailedLogin": Supported(Kind.BOOL, "is it from btmp?"),
        "PID": Supported(Kind.INT, "the process that let them in"),
        "Terminal": Supported(_TEXT, "pts/0, tty1, ssh:notty, ..."),
    },
    "ShellHistoryItem": {
        "Command": Supported(_TEXT, "one line of a history; of zsh and fish, one command"),
        "UserName": Supported(_TEXT, "in whose home it is"),
        "Shell": Supported(_TEXT, "bash, zsh, fish, ash, ksh, sh, csh: by the name of the file"),
        "Timestamp": Supported(Kind.DATE, "when, where the history says so"),
        "FileOrder": Supported(
            Kind.INT, "which command of its file it is, from 0; not of a file too long to be read whole"
        ),
    },
}
"""Document to path to what it is here."""
