"""Plants one thing for each term of FileItem, ProcessItem and PortItem, beside decoys; scans, and prints what it found.

To be run as a program in process and network namespaces of its own: what it starts ends with it.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from elftools.elf.elffile import ELFFile

from tests.core.ioc.openioc_files import file_11, group, term, written
from tests.worker.scan.test_file_elf import built

ACCOUNT = 1
"""The number of daemon, on every system, as user and as group."""
PLANTED, DECOY = "127.0.0.77", "127.0.0.66"
OTHER = "127.0.0.88"

PARENT = """
import os, subprocess, sys, time
begun = time.monotonic()
while time.monotonic() - begun < 0.1: pass  # then it was started measurably before its child
before = time.time()
child = subprocess.Popen([sys.argv[1], "-c", sys.argv[2], *sys.argv[3:]], executable=sys.argv[1],
                         stdout=subprocess.PIPE, env={**os.environ, "MARK": f"stanch-in-memory-{sys.argv[3]}"})
after = time.time()
print(child.pid, before, after, *child.stdout.readline().decode().split(), flush=True)
sys.stdin.read()
"""

CHILD = """
import mmap, os, resource, socket, sys
own, folder = sys.argv[1] == "planted", sys.argv[2]
kept = []
os.dup2(os.open(f"{folder}/open-{sys.argv[1]}", os.O_RDONLY), 77 if own else 66)
kept.append(os.open("/dev/full" if own else "/dev/zero", os.O_RDWR))
kept.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET if own else socket.SOCK_STREAM))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.77" if own else "127.0.0.66", 0))
udp.connect(("127.0.0.88", 9999) if own else ("127.0.0.55", 8888))
tcp = tcp6 = None
if own:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    tcp = socket.create_server(("127.0.0.77", 0))
    tcp6 = socket.create_server(("::1", 0), family=socket.AF_INET6)
    code = mmap.mmap(-1, 1234 * 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
mapped = open(f"{folder}/library-{sys.argv[1]}", "rb")
library = mmap.mmap(mapped.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
while own and (resource.getrusage(resource.RUSAGE_SELF).ru_utime < 0.5
               or resource.getrusage(resource.RUSAGE_SELF).ru_stime < 0.5):
    if resource.getrusage(resource.RUSAGE_SELF).ru_stime < 0.5:
        os.urandom(1 << 20)
if own:
    os.setgid(1)
    os.setuid(1)
print(udp.getsockname()[1], tcp.getsockname()[1] if tcp else 0, flush=True)
while True:
    sys.stdin.read()
    __import__("signal").pause()
"""

Case = tuple[str, str, str, Sequence[str]]
"""Term, condition, content, and the names of what it is to find."""


def main(folder: Path) -> None:
    """Plant, scan, tell."""
    decoys = plant_decoy_files(folder)
    processes = Processes(folder)
    while time.time() < decoys + 2:  # a time to the second must tell both apart
        time.sleep(0.1)
    file = plant_file(folder)
    cases = [*of_files(file), *processes.of_processes(), *processes.of_ports()]
    (folder / "iocs").mkdir()
    for number, (name, condition, content, _fits) in enumerate(cases):
        document, _, path = name.partition("/")
        kind = "date" if path in {"Created", "Modified", "Accessed", "Changed", "startTime"} else "string"
        asked = term(id=name, document=document, path=path, condition=condition, content=content, type=kind)
        logic = written(group("OR", asked, key=f"g{number}"))
        data = file_11(logic, key=name).replace(b"<short_description>One", f"<short_description>{name}".encode())
        (folder / "iocs" / f"{number}.ioc").write_bytes(data)
    ended = subprocess.run(
        [sys.executable, "-c", "import sys; from stanch.cli.main import main; sys.exit(main())",
         "ioc", "scan", "--no-gentle", "--path", folder / "look", folder / "iocs", "--json", "--skipped"],
        stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    names = {processes.planted: "planted", processes.decoy: "decoy", processes.zombie: "zombie", os.getpid(): "tester",
             processes.parent: "parent", processes.decoy_parent: "decoy-parent"}  # fmt: skip
    told = json.loads(ended.stdout)
    told["cases"] = [[name, condition, content, list(fits)] for name, condition, content, fits in cases]
    told["names"] = {str(pid): name for pid, name in names.items()}
    sys.stdout.write(json.dumps(told))


# --- files -----------------------------------------------------------------------------------------------------------


def plant_decoy_files(folder: Path) -> float:
    """A program for another processor, a text, an empty file; when."""
    (folder / "look" / "beside").mkdir(parents=True)
    program = built(wide=True, order="<")
    (folder / "look" / "beside" / "decoy.bin").write_bytes(program[:16] + b"\2\0" + program[18:])
    (folder / "look" / "beside" / "stanch-planted").write_bytes(b"a text about stanch-in-files, and not more")
    (folder / "look" / "empty").touch()
    for one in (folder / "look").rglob("*"):
        os.utime(one, (1_500_000_000, 1_500_000_001))
    return time.time()


def plant_file(folder: Path) -> Path:
    """A copy of the C library with something behind it, and with all that a file can have."""
    library = next(
        Path(line.split(None, 5)[5])
        for line in Path("/proc/self/maps").read_text().splitlines()
        if re.search(r"/libc[.-][^/]*$", line)
    )
    (folder / "look" / "nest").mkdir()
    path = folder / "look" / "nest" / "planted.evil"
    shutil.copyfile(library, path)
    with path.open("ab") as file:
        file.write(b"\0\0stanch-in-files-planted\0\0")
    os.chown(path, ACCOUNT, ACCOUNT)
    path.chmod(0o4751)
    os.utime(path.parent, (1_500_000_000, 1_500_000_001))
    return path


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def of_files(path: Path) -> Iterator[Case]:
    """What each term is to find: the planted file only."""
    data = path.read_bytes()
    born = int(subprocess.run(["stat", "--format=%W", path], capture_output=True, check=True).stdout)
    with path.open("rb") as opened:
        elf = ELFFile(opened)
        build = next(elf.get_section_by_name(".note.gnu.build-id").iter_notes())["n_desc"]
        symbols = [one for one in elf.get_section_by_name(".dynsym").iter_symbols() if one.name]
        imported = next(one.name for one in symbols if one["st_shndx"] == "SHN_UNDEF")
        needed = next(
            one.needed for one in elf.get_section_by_name(".dynamic").iter_tags() if one.entry.d_tag == "DT_NEEDED"
        )
        loader = elf.get_section_by_name(".interp").data().rstrip(b"\0").decode()
    os.utime(path, (1_400_000_000, 1_400_000_001))  # now that nobody reads it any more
    found = path.stat()
    values = {
        "FullPath": path, "FilePath": path.parent, "FileName": "planted.evil", "FileExtension": "evil",
        "SizeInBytes": len(data), "Modified": "2014-05-13T16:53:21Z", "Accessed": "2014-05-13T16:53:20Z",
        "Changed": _day(int(found.st_ctime)), "FileAttributes": "SetUserID", "Username": "daemon", "SecurityID": "1",
        "Group": "daemon", "GroupID": "1", "Permissions": "4751", "INode": found.st_ino,
        "Md5sum": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "Sha1sum": hashlib.sha1(data, usedforsecurity=False).hexdigest(),
        "Sha256sum": hashlib.sha256(data).hexdigest(), "StringList/string": "stanch-in-files-planted",
        "ELFInfo/Type": "Shared", "ELFInfo/Machine": {"EM_X86_64": "x86-64", "EM_AARCH64": "AArch64"}[elf["e_machine"]],
        "ELFInfo/Interpreter": loader, "ELFInfo/BuildID": build, "ELFInfo/Libraries/Library": needed,
        "ELFInfo/Sections/Section/Name": ".text", "ELFInfo/ImportedFunctions/string": imported,
        "ELFInfo/ExportedFunctions/string": "printf",
    }  # fmt: skip
    if born > 0:  # not every file system keeps it
        values["Created"] = _day(born)
    for name, content in values.items():
        above = [f"{one}?" for one in path.parents] if name in {"Created", "Changed"} else []  # in the same second?
        yield f"FileItem/{name}", "is", str(content), [str(path), *above]


# --- processes and ports ---------------------------------------------------------------------------------------------


class Processes:
    """The planted process, and a decoy, each with a parent; and somebody who has ended and was not taken away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept: list[subprocess.Popen[bytes]] = []
        (folder / "home").mkdir()
        folder.chmod(0o755)
        for name in ("planted", "decoy"):
            (folder / f"open-{name}").write_bytes(name.encode() * 1111)
            (folder / f"library-{name}").write_bytes(name.encode() * 2222)
            for one in (f"stanch-{name}", f"parent-{name}"):
                shutil.copyfile(Path(sys.executable).resolve(), folder / one)
                with (folder / one).open("ab") as file:
                    file.write(one.encode())
                (folder / one).chmod(0o755)
        self.decoy_parent, self.decoy, *_ = self._start("decoy")
        self.parent, self.planted, self.before, self.after, self.udp, self.tcp = self._start("planted")
        gone = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
        gone.stdout.read()
        self._kept.append(gone)
        self.zombie = gone.pid

    def _start(self, name: str) -> tuple[int, int, float, float, int, int]:
        parent, child = self.folder / f"parent-{name}", self.folder / f"stanch-{name}"
        environment = {**os.environ, "PYTHONHOME": sys.base_prefix}
        started = subprocess.Popen(
            [parent, "-c", PARENT, child, CHILD, name, self.folder, f"--mark-{name}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
        )  # fmt: skip
        self._kept.append(started)
        pid, before, after, udp, tcp = started.stdout.readline().split()
        return started.pid, int(pid), float(before), float(after), int(udp), int(tcp)

    def of_processes(self) -> Iterator[Case]:
        """What each term is to find: the planted process only, where no more is said."""
        maps = Path(f"/proc/{self.planted}/maps").read_text()
        region = int(re.search(r"^([0-9a-f]+)-\S+ rwx", maps, re.MULTILINE)[1], 16)
        opened = (self.folder / "open-planted").stat()
        exact: Mapping[str, object] = {
            "pid": self.planted, "parentpid": self.parent, "name": "stanch-planted",
            "path": self.folder / "stanch-planted", "Username": "daemon", "SecurityID": "1",
            "startTime": f"{_day(self.before - 0.02)} TO {_day(self.after + 0.02)}",
            "parentName": "parent-planted", "parentPath": self.folder / "parent-planted",
            **_hashes("", self.folder / "stanch-planted"),
            "HandleList/Handle/Type": "sock", "HandleList/Handle/Name": self.folder / "open-planted",
            "HandleList/Handle/FileDescriptor": "77", "HandleList/Handle/User": "daemon",
            "HandleList/Handle/Device": "1,7", "HandleList/Handle/Size": opened.st_size,
            "HandleList/Handle/INode": opened.st_ino, "HandleList/Handle/SocketType": "SEQPACKET",
            "HandleList/Handle/SocketProtocol": "RAW", "HandleList/Handle/SocketState": "LISTENING",
            "HandleList/Handle/SocketLocalAddress": PLANTED, "HandleList/Handle/SocketLocalPort": self.udp,
            "HandleList/Handle/SocketRemoteAddress": OTHER, "HandleList/Handle/SocketRemotePort": "9999",
            **_hashes("HandleList/Handle/", self.folder / "open-planted"),
            "SectionList/MemorySection/Name": self.folder / "library-planted",
            "SectionList/MemorySection/Protection": "rwxs", "SectionList/MemorySection/RegionStart": region,
            "SectionList/MemorySection/RegionSize": 1234 * 4096,
            **_hashes("SectionList/MemorySection/", self.folder / "library-planted"),
            "PortList/PortItem/pid": self.planted, "PortList/PortItem/process": "stanch-planted",
            "PortList/PortItem/path": self.folder / "stanch-planted", "PortList/PortItem/state": "LISTEN",
            "PortList/PortItem/localIP": PLANTED, "PortList/PortItem/localPort": self.tcp,
            "PortList/PortItem/remoteIP": OTHER, "PortList/PortItem/remotePort": "9999",
            "PortList/PortItem/protocol": "RAW",
        }  # fmt: skip
        for name, content in exact.items():
            yield f"ProcessItem/{name}", "is", str(content), ["planted"]
        # Its parent has it among its arguments, too; and who has started it may have it in its memory.
        yield "ProcessItem/arguments", "ends-with", " --mark-planted", ["planted", "parent"]
        yield (
            "ProcessItem/StringList/string",
            "contains",
            "MARK=stanch-in-memory-planted",
            ["planted", "tester?", "parent?"],
        )
        for name in ("kernelTime", "userTime"):  # who searches works, too
            yield f"ProcessItem/{name}", "greater-than", "0.45", ["planted", "tester?", "?"]
        alive = ["planted", "decoy", "parent", "decoy-parent", "tester", "?"]
        yield "ProcessItem/SectionList/MemorySection/Mapped", "is", "true", alive

    def of_ports(self) -> Iterator[Case]:
        """What each term is to find: ports of the planted process only."""
        exact: Mapping[str, object] = {
            "isIPv6": "true", "protocol": "RAW", "state": "LISTENING", "localIP": PLANTED, "localPort": self.tcp,
            "remoteIP": OTHER, "remotePort": "9999", "pid": self.planted, "process": "stanch-planted",
            "path": self.folder / "stanch-planted",
        }  # fmt: skip
        for name, content in exact.items():
            yield f"PortItem/{name}", "is", str(content), ["planted"]


def _hashes(prefix: str, path: Path) -> Mapping[str, str]:
    kinds = {"Md5sum": "md5", "Sha1sum": "sha1", "Sha256sum": "sha256"}
    data = path.read_bytes()
    return {prefix + name: hashlib.new(kind, data, usedforsecurity=False).hexdigest() for name, kind in kinds.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
