"""Kinds of file systems, by the names that the kernel has for them: which it makes up, and which are the network's."""

MADE_UP = frozenset(
    {
        *("proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "devpts", "mqueue", "bpf"),
        *("pstore", "configfs", "fusectl", "hugetlbfs", "binfmt_misc", "efivarfs", "rpc_pipefs", "nsfs", "autofs"),
        "selinuxfs",
    }
)
"""File systems whose files the kernel makes up, or whose folders do something when they are entered."""

NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "ncp", "9p", "afs", "coda", "ceph", "davfs", "virtiofs"),
        *("glusterfs", "lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "gfs2", "ocfs2", "panfs", "acfs", "vboxsf"),
    }
)
"""File systems whose content is elsewhere: slow, shared with others, or silent for ever."""


def is_network(kind: str) -> bool:
    """Is it one of the network's, or one that a process answers for (FUSE), which may hang as they do?"""
    return kind in NETWORK or kind == "fuse" or kind.startswith("fuse.")
