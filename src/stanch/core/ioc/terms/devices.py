"""Terms of devices and of what the kernel has loaded: ModuleItem, DiskItem, VolumeItem."""

from collections.abc import Mapping

from stanch.core.ioc.items import Cost, Kind, Supported

_TEXT, _HASH, _TRUE = Kind.STRING, Kind.HASH, Kind.BOOL

DEVICES: Mapping[str, Mapping[str, Supported]] = {
    "ModuleItem": {
        "Module": Supported(_TEXT, "the name of a module that is loaded, be it hidden from /proc/modules or not"),
        "ModuleName": Supported(_TEXT, "the same"),
        "Size": Supported(Kind.INT, "bytes of memory"),
        "ModuleSize": Supported(Kind.INT, "the same"),
        "Status": Supported(_TEXT, "Live, Loading, Unloading; hidden besides if /proc/modules does not have it"),
        "Address": Supported(
            _TEXT, "where it is in memory: 0xffffffffc0123000; not where the kernel keeps that secret"
        ),
        "UsedByList/Module": Supported(_TEXT, "each module that uses it"),
        "Filename": Supported(_TEXT, "the file of its name that the kernel would load", Cost.LOOKUP),
        "ModulePath": Supported(_TEXT, "the same", Cost.LOOKUP),
        "License": Supported(_TEXT, "as its file says (not of files compressed with zstd)", Cost.READ),
        "AliasList/Alias/Name": Supported(
            _TEXT, "each name of a device or the like that loads it; likewise", Cost.READ
        ),
        "DependsList/Depends/Module": Supported(_TEXT, "each module that it needs; likewise", Cost.READ),
        "Vermagic": Supported(_TEXT, "the kernel that it was made for; likewise", Cost.READ),
        "Intree": Supported(_TRUE, "does it come from the kernel's own source? likewise", Cost.READ),
        "Retpoline": Supported(_TRUE, "was it made with retpolines? likewise", Cost.READ),
        "Signat": Supported(_TEXT, "the kind of signature behind it: PKCS#7; likewise", Cost.READ),
        "Signer": Supported(_TEXT, "who issued the key of its signature, as that says; it is not checked", Cost.READ),
        "SigKey": Supported(_TEXT, "the number of that key, in hexadecimal digits, with colons and without", Cost.READ),
        "SigHashAlgorithm": Supported(_TEXT, "how it was hashed to be signed: sha256, sha512, ...", Cost.READ),
        "SrcVersion": Supported(_TEXT, "the checksum of its source, as the kernel has it", Cost.LOOKUP),
        "ParmList/Parm/Name": Supported(_TEXT, "each parameter that can be seen in /sys", Cost.LOOKUP),
        "Md5sum": Supported(_HASH, "MD5 of its file", Cost.READ),
        "Sha1sum": Supported(_HASH, "SHA-1 of its file", Cost.READ),
        "Sha256sum": Supported(_HASH, "SHA-256 of its file", Cost.READ),
    },
    "DiskItem": {
        "DiskName": Supported(_TEXT, "sda, nvme0n1, ..."),
        "DiskSize": Supported(Kind.INT, "bytes"),
        "DevicePath": Supported(_TEXT, "/dev/sda, ..."),
        "DiskConnection": Supported(_TEXT, "usb, ata, nvme, virtio, mmc, scsi, or virtual"),
        "Type": Supported(_TEXT, "fixed or removable; and rotating or solid-state"),
        "PartitionList/Partition/PartitionNumber": Supported(Kind.INT, "from 1"),
        "PartitionList/Partition/PartitionOffset": Supported(Kind.INT, "bytes from the beginning of the disk"),
        "PartitionList/Partition/PartitionLength": Supported(Kind.INT, "bytes"),
        "PartitionList/Partition/PartitionType": Supported(
            _TEXT, "its type in the table (0x83, a GUID), where udev has written it down", Cost.LOOKUP
        ),
    },
    "VolumeItem": {
        "MountPoint": Supported(_TEXT, "where it is mounted"),
        "DevicePath": Supported(_TEXT, "the device that was mounted; none of what has no device"),
        "DeviceID": Supported(_TEXT, "its numbers: 8:1"),
        "FileSystemName": Supported(_TEXT, "ext4, xfs, nfs4, tmpfs, ..."),
        "FileSystemFlags": Supported(_TEXT, "each option that it is mounted with: ro, noexec, ..."),
        "IsMounted": Supported(_TRUE, "always true here"),
        "RemoteFS": Supported(_TRUE, "is it from the network?"),
        "RemoteAddress": Supported(_TEXT, "the machine that it is from; or what was mounted, if that names none"),
        "Flags/ReadOnly": Supported(_TRUE, "can nothing be written there?"),
        "Flags/Removable": Supported(_TRUE, "is its disk of a kind that is taken out?", Cost.LOOKUP),
        "VolumeName": Supported(_TEXT, "the label of the file system, where udev has written it down", Cost.LOOKUP),
        "VolumeID": Supported(_TEXT, "the UUID of the file system, where udev has written it down", Cost.LOOKUP),
        "TotalSize": Supported(Kind.INT, "bytes; of file systems that surely answer", Cost.LOOKUP),
        "FreeSize": Supported(Kind.INT, "bytes that are free; likewise", Cost.LOOKUP),
    },
}
"""Document to path to what it is here."""
