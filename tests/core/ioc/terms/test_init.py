"""Tests of stanch.core.ioc.terms: one catalogue of all documents."""

from stanch.core.ioc.terms import DOCUMENTS

ISSUE = {
    *("FileItem", "ProcessItem", "PortItem", "ArpEntryItem", "RouteEntryItem", "DnsEntryItem", "ServiceItem"),
    *("TaskItem", "UserItem", "GroupItem", "ModuleItem", "DiskItem", "VolumeItem", "SystemInfoItem"),
    *("LoginHistoryItem", "ShellHistoryItem"),
}
"""The documents that have sense on Linux."""


def test_every_document_with_sense_on_linux_is_known() -> None:
    """None is missing, and none has no terms."""
    assert set(DOCUMENTS) >= ISSUE
    assert all(DOCUMENTS.values())


def test_every_term_says_what_it_is_here() -> None:
    """The reference has no empty line."""
    silent = [f"{name}/{path}" for name, terms in DOCUMENTS.items() for path, one in terms.items() if not one.what]
    assert not silent
