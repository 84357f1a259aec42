"""Where a link to /dev/null stands in the way of an autorun, and what must go on starting. Pure: it looks at no disk.

systemd and udev look for a name in several folders, and the first counts. So what a package brought stays where it is:
a link in /etc is enough, an upgrade does not bring the thing back, and what wants it needs no change.
"""

import re
from types import MappingProxyType

from stanch.core.autoruns import Autorun, Place
from stanch.core.types import EndpointPath

TARGET = "/dev/null"

UNITS = frozenset({Place.SYSTEMD_UNIT, Place.SYSTEMD_TIMER})

_LIB = r"/(?:usr/local/lib|usr/local/share|usr/lib|usr/share|lib|run)"
_PACKAGED = re.compile(_LIB + r"/systemd/(system|user)(?:\.attached)?/(.+)")
_OF_HOME = re.compile(r"(/.+)/\.(?:config|local/share)/systemd/user(?:\.control)?/.+")
_MASKED_BY_NAME = re.compile(
    _LIB + r"/((?:systemd/(?:system|user)(?:-environment)?-generators|udev/rules\.d|modules-load\.d)/[^/]+)"
)
_DROP_IN = re.compile(r".+\.d/[^/]+\.conf")
_FOR_THIS_BOOT = re.compile(
    r"/run/(?:user/\d+/)?systemd/(?:transient|generator[^/]*|system\.control|user\.control)/.+|/run/user/.+"
)
_STRONGER = re.compile(r"/etc/systemd/system\.(?:control|attached)/.+")


def unit_of(one: Autorun) -> str:
    """The name of its unit; whose it is, is behind it in brackets."""
    return one.name.partition(" ")[0]


def is_drop_in(one: Autorun) -> bool:
    """Does it only say more of a unit?"""
    return one.place in UNITS and _DROP_IN.fullmatch(one.path) is not None


def is_of_system(path: str) -> bool:
    """Is a link at this path read by the system's manager, not by one of a user?"""
    return path.startswith("/etc/systemd/system/")


def mask_of(one: Autorun) -> EndpointPath | None:
    """Where a link would keep it from starting; None if only taking its file away does."""
    if one.line:
        return None
    if one.place in UNITS:
        return _mask_of_unit(one)
    found = _MASKED_BY_NAME.fullmatch(one.path)
    return EndpointPath(f"/etc/{found[1]}") if found else None


def _mask_of_unit(one: Autorun) -> EndpointPath | None:
    packaged, home = _PACKAGED.fullmatch(one.path), _OF_HOME.fullmatch(one.path)
    if is_drop_in(one):
        return EndpointPath(f"/etc/systemd/{packaged[1]}/{packaged[2]}") if packaged else None
    if _STRONGER.fullmatch(one.path):
        return None
    if home:
        return EndpointPath(f"{home[1]}/.config/systemd/user/{unit_of(one)}")
    manager = packaged[1] if packaged else "user" if "/systemd/user/" in one.path else "system"
    return EndpointPath(f"/etc/systemd/{manager}/{unit_of(one)}")


def packaged_twins(mask: str) -> tuple[str, ...]:
    """Where a package would have a unit for which something stands in its stead at `mask`; none for a home."""
    found = re.fullmatch(r"/etc/systemd/(system|user)/([^/]+)", mask)
    folders = ("/usr/local/lib", "/usr/lib", "/lib")
    return tuple(f"{one}/systemd/{found[1]}/{found[2]}" for one in folders) if found else ()


# --- what must go on starting ----------------------------------------------------------------------------------------

_STANCH = frozenset(
    {"stanch-agent.service", "stanch-server.service", "stanch-isolation.service", "stanch-isolation-device@.service"}
)
_NEEDED = (
    (r"systemd-.+|init\.scope", "systemd itself needs it"),
    (r"dbus(?:-broker|-daemon)?\.(?:service|socket)", "systemd and its services talk through it"),
    (r".+\.target|.+\.slice|-\.mount", "the machine does not start without it"),
    (r".+\.(?:mount|automount|swap|device)", "it is a file system or swap: unmount it instead, with its line in fstab"),
    (r"(?:(?:serial-|console-)?getty@?.*|emergency|rescue)\.service", "it is the way in at the console"),
    (
        r"(?:NetworkManager|networking|network|wicked(?:d.*)?|dhcpcd|netplan.*|cloud-init.*|ifup@.+)\.service",
        "the network needs it, and with it the way to the server",
    ),
)


def is_unit_of_system(path: str) -> bool:
    """Is it a file of the system's manager, where Stanch puts its own? Not one of a user, or for this boot only."""
    return path.startswith(("/etc/systemd/system/", "/usr/lib/systemd/system/", "/lib/systemd/system/"))


def why_needed(one: Autorun) -> str | None:
    """Why a unit must go on starting; None if it need not. What merely has the name of one of the machine's is none."""
    unit = unit_of(one)
    if one.place not in UNITS or is_drop_in(one):
        return None
    if one.path.rpartition("/")[2] in _STANCH and is_unit_of_system(one.path):
        return "it is a part of Stanch itself"
    of_machine = _PACKAGED.fullmatch(one.path) is not None or one.package
    return next((why for name, why in _NEEDED if re.fullmatch(name, unit) and of_machine), None)


_KINDS_OF_MALWARE = (".service", ".socket", ".timer", ".path")


def is_kept_by_name(one: Autorun) -> bool:
    """Is a unit kept for its name and folder alone, though no package is known to have brought it?"""
    in_folder = one.path.startswith(("/usr/", "/lib/")) and unit_of(one).endswith(_KINDS_OF_MALWARE)
    of_stanch = one.path.rpartition("/")[2] in _STANCH
    return in_folder and not (one.package or of_stanch or why_untouchable(one)) and why_needed(one) is not None


_SIGN_IN = re.compile(
    r"(?:^|\s)pam_(?:unix|deny|permit|sss|ldap|krb5|winbind|rootok|nologin|faillock|tally2|access|securetty|succeed_if"
    r"|localuser|usertype|wheel|shells|env|limits|systemd|selinux|loginuid)\.so(?:\s|$)"
)
"""Modules that decide who may sign in, by their name alone: found where the system keeps them."""

_FOR_PEOPLE = MappingProxyType(
    {
        Place.KERNEL: "the boot loader says it: change its configuration (such as /etc/default/grub, then update-grub),"
        " and start the machine anew",
    }
)


_GENERATORS = re.compile(
    r"/(?:usr/)?lib/systemd/system-generators/(?:systemd-(?:fstab|cryptsetup|veritysetup|gpt-auto|getty|debug|sysv|run)"
    r"-generator|lvm2-.+|zfs-.+|ostree-.+|netplan|cloud-init-generator|coreos-.+)"
)
_BOOT = frozenset(
    {"/etc/rc", "/etc/rc.d/rc", "/etc/rc.d/rc.sysinit", "/etc/rc.common", "/etc/init.d/rcS", "/etc/init.d/rc"}
)
_BOOT_SCRIPTS = re.compile(
    r"(?:check(?:root|fs)|mount.*|umount.*|localmount|root|fsck|udev.*|eudev|mdev|sysfs|devfs|procfs|cgroups|kmod"
    r"|modules|hwclock.*|hostname.*|bootmisc.*|procps|sysctl|networking|network|net\..+|dbus|lvm2?.*|mdadm.*"
    r"|cryptdisks.*|sendsigs|halt|reboot|single|killprocs|killall|stanch.*)(?:\.sh)?"
)
_STORAGE_RULES = re.compile(r"(?:/usr)?/lib/udev/rules\.d/\d+-(?:dm|lvm|md|multipath|persistent-storage|btrfs|zfs).*")


def _why_boot_needs(one: Autorun) -> str | None:
    """What starts the machine without being a unit."""
    name, why = one.path.rpartition("/")[2], "the machine does not start without it"
    if one.place is Place.SYSTEMD_GENERATOR and _GENERATORS.fullmatch(one.path):
        return "it makes the units of file systems, swap, consoles or networks: the machine may not start without it"
    if one.place in {Place.RC, Place.INIT} and one.path in _BOOT:
        return why
    if one.place is Place.INIT and not one.line and one.package and _BOOT_SCRIPTS.fullmatch(name):
        return why
    if one.place is Place.UDEV and one.package and one.differs is False and _STORAGE_RULES.fullmatch(one.path):
        return "a package brought it, and disks may not be found without it"
    if one.place is Place.UDEV and name == "90-stanch-isolation.rules":
        return "it is a part of Stanch itself"
    return None


def why_untouchable(one: Autorun) -> str | None:
    """Why something else cannot be disabled, and what a person can do; None if it can."""
    if one.place in _FOR_PEOPLE:
        return _FOR_PEOPLE[one.place]
    if one.place in UNITS and _FOR_THIS_BOOT.fullmatch(one.path):
        return "it was made for this boot, and nothing stands before it: disable what makes it, and end its processes"
    if one.place is Place.PAM and _is_needed_in_pam(one):
        return "a package brought it, and nobody could sign in without it: see pam-auth-update or authselect"
    if one.place is Place.SUDO and not one.line and one.path == "/etc/sudoers":
        return "nobody could become root any more: disable its lines"
    if one.place is Place.INIT and one.line and re.search(r":(?:initdefault|sysinit|boot|bootwait|wait):", one.command):
        return "the machine does not start without it"
    return _why_boot_needs(one)


_LETS_IN = re.compile(r"\s*-?(?:auth|account)\s+sufficient\s+pam_permit\.so(?:\s|$)")
"""A well-known back door: everybody is let in at once. Without it, signing in is only stricter."""


def _is_needed_in_pam(one: Autorun) -> bool:
    if not one.line or (bool(one.package) and one.differs is False):
        return True
    return _SIGN_IN.search(one.command) is not None and _LETS_IN.match(one.command) is None
