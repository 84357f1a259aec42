"""A real process that confines itself as a worker does, tries something, and tells what came of it."""

import json
import subprocess
import sys

PROGRAM = """
import ctypes, fcntl, json, mmap, os, signal, socket, subprocess, sys, threading
from {package} import {module} as confining
for name in {without!r}:
    setattr(confining, name, lambda *_, **__: None)
libc = ctypes.CDLL(None, use_errno=True)
pair = socket.socketpair()
{before}
told = confining.{confine}
try:
    {what}
    came = "done"
except BaseException as error:
    came = type(error).__name__
os.write(1, json.dumps([told, came]).encode())
os._exit(0)
"""


def tried_in(confine: str, what: str, *, without: str = "", before: str = "") -> tuple[dict[str, str], str]:
    """How a fresh process was confined, and what came of some Python in it afterwards: "done", or its exception.

    `confine` is the call that confines it (`package.module.function(...)`). `without` names the measures of that module
    that are left out: each of the others must do by itself. `before` is done first; it knows the module as `confining`.
    """
    place, call = confine.split("(", 1)
    package, module, function = place.rsplit(".", 2)
    program = PROGRAM.format(
        package=package,
        module=module,
        confine=f"{function}({call}",
        what="\n    ".join(what.splitlines()),
        without=without.split(),
        before=before,
    )
    ended = subprocess.run(
        [sys.executable, "-I", "-c", program], env={}, cwd="/", capture_output=True, check=False, timeout=30
    )
    assert ended.returncode == 0, (ended.returncode, ended.stderr)
    told, came = json.loads(ended.stdout)
    return told, came
