"""What one task is handed: bound by the owner's limits, unless it was made on this machine itself."""

import os
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest

from stanch.agent.hosts import HostMaker, evidence_key, group_settings, supervisor_pid, vault_settings
from stanch.agent.journal import Journal
from stanch.agent.path_rules import PathRules
from stanch.agent.supervisor import BEAT_VARIABLE
from stanch.core.envelope import Kind
from stanch.core.settings import GroupSettings, VaultSettings
from stanch.core.types import EndpointPath


@pytest.fixture
async def journal(tmp_path: Path):
    """A journal on the disk."""
    made = Journal(tmp_path / "journal.db")
    yield made
    await made.close()


async def test_without_a_policy_nothing_is_set(journal: Journal):
    """Defaults hold until the server has signed something."""
    assert group_settings(journal) == GroupSettings()
    assert vault_settings(journal) == VaultSettings()
    assert evidence_key(journal) == ""


async def test_what_the_server_signed_is_followed(journal: Journal):
    """The newest policy, and the newest key."""
    await journal.put({Kind.POLICY: {"settings": {"vault": {"limit": "5MB", "protect_services": True}}}})
    await journal.put({Kind.ADDRESSES: {"urls": [], "evidence_key": "age1abc"}})
    assert vault_settings(journal).limit == 5_000_000
    assert vault_settings(journal).protect_services
    assert evidence_key(journal) == "age1abc"


async def test_a_policy_that_is_not_understood_is_not_followed(journal: Journal):
    """An agent must not stop for it."""
    await journal.put({Kind.POLICY: {"settings": {"vault": {"limit": "much"}}}})
    await journal.put({Kind.ADDRESSES: {"evidence_key": 7}})
    assert vault_settings(journal) == VaultSettings()
    assert evidence_key(journal) == ""


def test_only_a_supervisor_is_taken_for_one(monkeypatch: pytest.MonkeyPatch):
    """An agent that was started by hand does not protect whoever started it."""
    assert supervisor_pid() is None
    monkeypatch.setenv(BEAT_VARIABLE, "3")
    assert supervisor_pid() == os.getppid()


def test_no_rule_looks_into_our_own_folder():
    """What a rule matches is told: so it must not be our keys, whoever may order a scan."""
    own = EndpointPath("/var/lib/stanch/agent")
    parts = {one.name: object() for one in fields(HostMaker)} | {"own": (own,)}
    scanner = HostMaker(**parts)._scanner(SimpleNamespace(task="tsk_1"), PathRules())
    assert own in scanner._parts.forbidden()
