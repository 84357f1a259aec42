"""A scanner's worker that a test plays: a program that speaks the protocol, with what the test wants to be said.

`python played_worker.py PLAY`: PLAY is a file of JSON, a list of steps for each life of the worker; the last one is for
all further lives, too. How many lives there were is counted in a file beside it.
"""

import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path


def say(message):
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


def read():
    return json.loads(sys.stdin.buffer.readline())


def opening(log):
    job = read()
    log({"job": job})
    for _ in range(job["materials"]):
        header = read()
        content = sys.stdin.buffer.read(header["size"])
        log({"material": header["name"], "content": content.decode("latin-1")})
    return job


def until_all(log):
    while True:
        message = read()
        log(message)
        if message["type"] == "opened":
            for one in message["files"]:
                log({"read": one["name"], "begins": os.pread(one["fd"], 4, 0).decode("latin-1")})
        if message["type"] == "all":
            return


def at(job, name):
    shared = mmap.mmap(job["at"], 0)
    raw = os.fsencode(name)
    shared[: 2 + len(raw)] = len(raw).to_bytes(2, "little") + raw


def raw(_job, text):
    sys.stdout.buffer.write(text.encode("latin-1"))
    sys.stdout.buffer.flush()


def child(log):
    one = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    log({"pids": [os.getpid(), one.pid]})


def holder(log):
    """A child that leaves the session and holds all streams, after which the worker itself ends."""
    one = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    log({"holder": one.pid})


def flood(_job, line):
    """The same line for ever."""
    while True:
        sys.stdout.buffer.write(line.encode() + b"\n")


def complain(_job, count):
    for _ in range(count):
        sys.stderr.buffer.write(b"x" * 10_000)
    sys.stderr.buffer.flush()


def environment(log):
    log({"environ": dict(os.environ), "cwd": str(Path.cwd()), "nice": os.nice(0), "sid": os.getsid(0)})


DOES = {
    "say": lambda _job, message: say(message),
    "raw": raw,
    "at": at,
    "long": lambda _job, size: say({"type": "events", "events": [], "filler": "x" * size}),
    "learn": lambda job, text: os.write(job["learned"], text.encode()),
    "die": lambda _job, number: os.kill(os.getpid(), number),
    "flood": flood,
    "complain": complain,
    "hang": lambda _job, _value: time.sleep(1000),
}
"""Steps that take the job and a value."""

LOGS = {
    "all": until_all,
    "hear": lambda log: log(read()),
    "child": child,
    "holder": holder,
    "environment": environment,
}
"""Steps that write down what they met."""


def play(steps, log):
    job = {}
    for step, value in steps:
        if step == "open":
            job = opening(log)
        elif step in DOES:
            DOES[step](job, value)
        else:
            LOGS[step](log)


def main(place):
    path = Path(place)
    lives = json.loads(path.read_text())
    counter = path.with_suffix(".lives")
    life = len(counter.read_text()) if counter.exists() else 0
    with counter.open("a") as file:
        file.write("x")

    def log(what):
        with path.with_suffix(".log").open("a") as file:
            file.write(json.dumps(what) + "\n")

    play(lives[min(life, len(lives) - 1)], log)


if __name__ == "__main__":
    main(sys.argv[1])
