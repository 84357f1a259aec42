"""Programs that run whatever they are told: shells, interpreters, loaders, and what starts other programs.

Whoever may run one of them may run anything. They are recognised by the name that a file really has, links resolved,
and by being the same file as one of the usual places: a hard link is found. A copy under another name is not: allow
only folders that root alone can write to (`[programs] allow`).
"""

import re
from contextlib import suppress
from pathlib import Path

from stanch.core.types import EndpointPath

_SHELLS = "sh|ash|bash|dash|zsh|fish|csh|tcsh|mksh|yash|pwsh|elvish|nu|xonsh|rbash|[lmo]?ksh(93)?|busybox|toybox"
_LANGUAGES = (
    "python|pypy|perl|ruby|irb|node|nodejs|bun|deno|php|php-cgi|lua|luajit|tclsh|wish|expect|[gmn]?awk|original-awk"
    "|guile|racket|sbcl|clisp|emacs|erl|escript|elixir|java|jshell|groovy|scala|mono|dotnet|gdb|osascript|Rscript|julia"
)
_STARTERS = (
    "env|xargs|find|nohup|setsid|timeout|nice|ionice|chrt|taskset|stdbuf|script|sudo|doas|su|runuser|setpriv|chroot"
    "|nsenter|unshare|capsh|systemd-run|at|batch|parallel|watch|time|strace|ltrace|ssh|docker|podman|ctr|nerdctl|vim?"
    "|flock|prlimit|setarch|linux(32|64)|i386|x86_64|choom|uclampset|run-parts|start-stop-daemon|chpst|pkexec|run0|sg"
    "|newgrp|fakeroot|proot|bwrap|runc|crun|crictl|kubectl|machinectl|systemd-nspawn|dbus-run-session|screen|tmux|socat"
    "|ncat|g?make|perf|valgrind|g?sed|g?tar|rsync|git|ed|ex|view|crontab"
)
_LOADERS = r"ld-linux.*|ld-musl.*|ld64?\.so.*|ld-\d.*"
_VERSION = r"[-.\d]*(-dbg|-config)?"

_NAME = re.compile(rf"(?:(?:{_SHELLS}|{_LANGUAGES}|{_STARTERS}){_VERSION}|{_LOADERS})")
_PLACES = ("/bin/sh", "/bin/bash", "/bin/dash", "/bin/busybox", "/usr/bin/env", "/usr/bin/perl", "/usr/bin/python3")


def runs_anything(path: EndpointPath, places: tuple[str, ...] = _PLACES) -> bool:
    """Is it one of them? `path` has its links resolved. Asks the file system."""
    return _NAME.fullmatch(path.name) is not None or any(_is_same(path, Path(one)) for one in places)


def _is_same(path: EndpointPath, place: Path) -> bool:
    with suppress(OSError, ValueError):
        return Path(path).samefile(place)
    return False


CODE_LOADING = re.compile(
    r"LD_.*|GCONV_PATH|GLIBC_TUNABLES|BASH_ENV|ENV|PYTHON.*|PERL5.*|PERLLIB|RUBY.*|NODE_.*|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS"
    r"|JDK_JAVA_OPTIONS|CLASSPATH|LUA_.*|PHPRC|PHP_INI_SCAN_DIR|OPENSSL_.*|MALLOC_.*|HOME|PATH|SHELL|EDITOR|PAGER|VISUAL"
)
"""Variables by which a program can be made to load, or to start, something else."""


def loads_code(variable: str) -> bool:
    """May this environment variable make an allowed program run what is not allowed?"""
    return CODE_LOADING.fullmatch(variable) is not None
