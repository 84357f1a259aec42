"""Terms of processes: ProcessItem."""

from collections.abc import Mapping

from stanch.core.ioc.items import Cost, Kind, Supported

_HANDLE = "HandleList/Handle"
_SECTION = "SectionList/MemorySection"
_PORT = "PortList/PortItem"

_ITSELF: Mapping[str, Supported] = {
    "pid": Supported(Kind.INT, "its number in the pid namespace of the agent"),
    "parentpid": Supported(Kind.INT, "the number of its parent; 0 if that is outside"),
    "name": Supported(Kind.STRING, "its name as the kernel has it (15 bytes), and the file name of its program"),
    "path": Supported(
        Kind.STRING,
        "the whole path of its program, with and without the kernel's remark that it was deleted; none for a kernel "
        "thread",
    ),
    "Username": Supported(Kind.STRING, "the account of its effective user id; the number if it has no account"),
    "SecurityID": Supported(Kind.STRING, "its effective user id"),
    "startTime": Supported(Kind.DATE, "when it was started, to 10 ms"),
    "kernelTime": Supported(Kind.DURATION, "processor time that it spent in the kernel"),
    "userTime": Supported(Kind.DURATION, "processor time that it spent outside of the kernel"),
    "arguments": Supported(
        Kind.STRING, "its command line, the program's own name first, joined by spaces; up to 128 KiB", Cost.LOOKUP
    ),
    "parentName": Supported(Kind.STRING, "name of its parent, as `name`; not in the official list", Cost.LOOKUP),
    "parentPath": Supported(Kind.STRING, "program of its parent, as `path`; not in the official list", Cost.LOOKUP),
    "Md5sum": Supported(Kind.HASH, "MD5 of its program, deleted or not; not in the official list", Cost.READ),
    "Sha1sum": Supported(Kind.HASH, "SHA-1 of its program; not in the official list", Cost.READ),
    "Sha256sum": Supported(Kind.HASH, "SHA-256 of its program; not in the official list", Cost.READ),
    "StringList/string": Supported(
        Kind.STRING,
        "a printable text of six or more characters (ASCII or UTF-16) in the memory that it can write and that is of "
        "no file; of the first 32 MiB, up to 200,000 characters; not of the agent and what it has started",
        Cost.DEEP,
    ),
}

_HANDLES: Mapping[str, Supported] = {
    f"{_HANDLE}/Type": Supported(
        Kind.STRING,
        "what is open, in the words of lsof: REG, DIR, CHR, BLK, FIFO, unix, IPv4, IPv6, sock, a_inode",
        Cost.LOOKUP,
    ),
    f"{_HANDLE}/Name": Supported(
        Kind.STRING,
        "path of an open file, of the working or root folder; ends of a socket; what the kernel calls anything else",
        Cost.LOOKUP,
    ),
    f"{_HANDLE}/FileDescriptor": Supported(
        Kind.STRING, "its number; cwd and rtd for the working and root folder", Cost.LOOKUP
    ),
    f"{_HANDLE}/User": Supported(Kind.STRING, "the account of the process", Cost.LOOKUP),
    f"{_HANDLE}/Device": Supported(Kind.STRING, "device on which the file is: major,minor", Cost.LOOKUP),
    f"{_HANDLE}/Size": Supported(Kind.STRING, "size of the regular file in bytes", Cost.LOOKUP),
    f"{_HANDLE}/INode": Supported(Kind.INT, "number of the file, or of the socket", Cost.LOOKUP),
    f"{_HANDLE}/SocketType": Supported(Kind.STRING, "STREAM, DGRAM, SEQPACKET or RAW", Cost.LOOKUP),
    f"{_HANDLE}/SocketProtocol": Supported(Kind.STRING, "TCP, UDP, UDPLITE, RAW, UNIX", Cost.LOOKUP),
    f"{_HANDLE}/SocketState": Supported(Kind.STRING, "as PortItem/state", Cost.LOOKUP),
    f"{_HANDLE}/SocketLocalAddress": Supported(Kind.STRING, "address on this side", Cost.LOOKUP),
    f"{_HANDLE}/SocketLocalPort": Supported(Kind.STRING, "port on this side", Cost.LOOKUP),
    f"{_HANDLE}/SocketRemoteAddress": Supported(Kind.STRING, "address of the other side", Cost.LOOKUP),
    f"{_HANDLE}/SocketRemotePort": Supported(Kind.STRING, "port of the other side", Cost.LOOKUP),
    f"{_HANDLE}/Md5sum": Supported(Kind.HASH, "MD5 of an open regular file of up to 256 MiB", Cost.READ),
    f"{_HANDLE}/Sha1sum": Supported(Kind.HASH, "SHA-1 of the same", Cost.READ),
    f"{_HANDLE}/Sha256sum": Supported(Kind.HASH, "SHA-256 of the same", Cost.READ),
}

_SECTIONS: Mapping[str, Supported] = {
    f"{_SECTION}/Name": Supported(Kind.STRING, "path of a mapped file: a library, the program, data", Cost.LOOKUP),
    f"{_SECTION}/Protection": Supported(Kind.STRING, "what the memory may be used for: r-xp, rwxp, ...", Cost.LOOKUP),
    f"{_SECTION}/RegionStart": Supported(Kind.INT, "address at which it begins", Cost.LOOKUP),
    f"{_SECTION}/RegionSize": Supported(Kind.INT, "bytes", Cost.LOOKUP),
    f"{_SECTION}/Mapped": Supported(Kind.BOOL, "is it of a file?", Cost.LOOKUP),
    f"{_SECTION}/Md5sum": Supported(
        Kind.HASH, "MD5 of a file of up to 256 MiB that is mapped as a program is: a library, the program", Cost.READ
    ),
    f"{_SECTION}/Sha1sum": Supported(Kind.HASH, "SHA-1 of the same", Cost.READ),
    f"{_SECTION}/Sha256sum": Supported(Kind.HASH, "SHA-256 of the same", Cost.READ),
}

_PORTS: Mapping[str, Supported] = {
    f"{_PORT}/pid": Supported(Kind.INT, "its number, if it has a port", Cost.LOOKUP),
    f"{_PORT}/process": Supported(Kind.STRING, "its name, if it has a port", Cost.LOOKUP),
    f"{_PORT}/path": Supported(Kind.STRING, "its program, if it has a port", Cost.LOOKUP),
    f"{_PORT}/state": Supported(Kind.STRING, "as PortItem/state", Cost.LOOKUP),
    f"{_PORT}/localIP": Supported(Kind.IP, "address on this side", Cost.LOOKUP),
    f"{_PORT}/localPort": Supported(Kind.INT, "port on this side", Cost.LOOKUP),
    f"{_PORT}/remoteIP": Supported(Kind.IP, "address of the other side", Cost.LOOKUP),
    f"{_PORT}/remotePort": Supported(Kind.INT, "port of the other side", Cost.LOOKUP),
    f"{_PORT}/protocol": Supported(Kind.STRING, "TCP, UDP, UDPLITE or RAW", Cost.LOOKUP),
}

PROCESSES: Mapping[str, Mapping[str, Supported]] = {
    "ProcessItem": {**_ITSELF, **_HANDLES, **_SECTIONS, **_PORTS},
}
"""Document to path to what it is here."""
