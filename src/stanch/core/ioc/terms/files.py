"""Terms of files: FileItem.

Names are those of the official list. It has nothing for the programs of Linux: `ELFInfo/...` are our own, made like its
`PEInfo/...`. Where writers of indicators spell one thing in two ways (`/tmp` and `/tmp/`, `sh` and `.sh`), the item has
both as values, and either matches.

A folder, link, pipe, socket or device file is an item, too, as it is itself: no link is followed, nothing of it is
opened. It has no content, so terms of content (hashes, strings, ELFInfo) are known not to be there: none fits, and
negated they hold.
"""

from collections.abc import Mapping

from stanch.core.ioc.items import Cost, Kind, Supported

FILES: Mapping[str, Mapping[str, Supported]] = {
    "FileItem": {
        "FullPath": Supported(
            Kind.STRING, "the whole path of a file, folder, symbolic link, pipe, socket or device file"
        ),
        "FilePath": Supported(Kind.STRING, "the folder it is in, with and without a slash at the end"),
        "FileName": Supported(Kind.STRING, "the name without its folder"),
        "FileExtension": Supported(
            Kind.STRING, "what is behind the last dot of the name, with the dot and without; the dot that hides is none"
        ),
        "SizeInBytes": Supported(Kind.INT, "bytes; of a link, of the path that it names"),
        "Created": Supported(Kind.DATE, "when the inode was made, where the file system keeps that", Cost.LOOKUP),
        "Modified": Supported(Kind.DATE, "when the content was written last (mtime)"),
        "Accessed": Supported(Kind.DATE, "when it was read last (atime), as far as the mount keeps that"),
        "Changed": Supported(Kind.DATE, "when content, owner, rights or names were changed last (ctime)"),
        "FileAttributes": Supported(
            Kind.STRING,
            "one word for each: Directory, SymbolicLink, ReadOnly (nobody may write), Hidden (its name begins with a "
            "dot), Executable, SetUserID, SetGroupID, Sticky, Sparse, Compressed, Immutable, AppendOnly, NoDump, "
            "Encrypted, Verity",
            Cost.LOOKUP,
        ),
        "Username": Supported(Kind.STRING, "the name of its owner, if /etc/passwd has it"),
        "SecurityID": Supported(Kind.STRING, "the number of its owner (uid)"),
        "Group": Supported(Kind.STRING, "the name of its group, if /etc/group has it"),
        "GroupID": Supported(Kind.STRING, "the number of its group (gid)"),
        "Permissions": Supported(Kind.INT, "the rights as chmod has them, read as one number: 644, 4755"),
        "INode": Supported(Kind.INT, "the number of its inode"),
        "Md5sum": Supported(Kind.HASH, "MD5 of the content (only regular files have one)", Cost.READ),
        "Sha1sum": Supported(Kind.HASH, "SHA-1 of the content (only regular files have one)", Cost.READ),
        "Sha256sum": Supported(Kind.HASH, "SHA-256 of the content (only regular files have one)", Cost.READ),
        "StringList/string": Supported(
            Kind.STRING, "a text of four signs or more in the content, ASCII or UTF-16 (little endian)", Cost.DEEP
        ),
        "ELFInfo/Type": Supported(
            Kind.STRING, "what kind of program it is: Relocatable, Executable, Shared, Core", Cost.LOOKUP
        ),
        "ELFInfo/Machine": Supported(Kind.STRING, "for which processors: x86-64, AArch64, ...", Cost.LOOKUP),
        "ELFInfo/Interpreter": Supported(Kind.STRING, "the path of the loader that it asks for", Cost.LOOKUP),
        "ELFInfo/BuildID": Supported(Kind.STRING, "the id that its linker gave it", Cost.LOOKUP),
        "ELFInfo/Libraries/Library": Supported(Kind.STRING, "a library that it needs", Cost.LOOKUP),
        "ELFInfo/Sections/Section/Name": Supported(Kind.STRING, "the name of a section", Cost.LOOKUP),
        "ELFInfo/ImportedFunctions/string": Supported(
            Kind.STRING, "the name of something that it takes from a library", Cost.READ
        ),
        "ELFInfo/ExportedFunctions/string": Supported(
            Kind.STRING, "the name of something that it gives to others", Cost.READ
        ),
    },
}
"""Document to path to what it is here."""
