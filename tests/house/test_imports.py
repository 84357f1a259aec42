"""Who may import whom, with the reason in the message: the rule that keeps the house a house."""

import sys
from collections.abc import Iterator

import pytest

from tests.house.source import PACKAGE, Import, Source, package

WHY = {
    "core": "core is pure: every other part stands on it, so it stands on nothing",
    "actions": "an action file is loaded by the agent, the server and the command line alike, so it may need only core",
    "derive": "derive is a pure function of the registry",
    "disk": "disk is one door to the file system, for every part",
    "worker": "the worker opens hostile bytes for the server and the agent alike, and must hold nothing worth taking",
    "agent": "an endpoint carries the agent alone, and must never learn what the server knows",
    "server": "the server must run without an agent, and must not reach around the link",
    "client": "the client is a library for other programs: it speaks REST, and knows neither server nor agent",
    "cli": "the command line is a client; it starts a server, an agent or the demo only when asked to",
    "demo": "the demo builds the whole system on one machine",
}
"""Why the layers below are all that a layer may import."""

BELOW = {
    "core": frozenset[str](),
    "actions": frozenset({"core"}),
    "derive": frozenset({"core", "actions"}),
    "disk": frozenset[str](),
    "worker": frozenset({"core"}),
    "agent": frozenset({"core", "actions", "derive", "disk", "worker"}),
    "server": frozenset({"core", "actions", "derive", "disk", "worker"}),
    "client": frozenset({"core", "actions", "derive", "disk"}),
    "cli": frozenset({"core", "actions", "derive", "disk", "client"}),
    "demo": frozenset({"core", "actions", "derive", "disk", "client", "worker", "agent", "server", "cli"}),
}

ENTRIES = frozenset(
    {
        *("stanch.server.main", "stanch.server.settings", "stanch.agent.enroll", "stanch.agent.main"),
        *("stanch.agent.local", "stanch.agent.alone", "stanch.agent.scan_alone", "stanch.demo.main"),
        *("stanch.agent.settings", "stanch.agent.selftest", "stanch.agent.selftest_probe"),
        *("stanch.agent.bundle", "stanch.agent.uninstall", "stanch.agent.uninstall_survey"),
    }
)
"""What the command line may import, inside functions only: starting it must not cost what it does not do."""

CORE_MAY = frozenset(
    {
        *("abc", "base64", "collections", "contextlib", "dataclasses", "datetime", "enum", "functools", "hashlib"),
        *("hmac", "inspect", "ipaddress", "itertools", "json", "math", "operator", "re", "string", "types", "typing"),
        *("joserfc", "pydantic", "pydantic_core"),
        *("difflib", "xml", "re2", "stix2patterns", "antlr4"),
        "asyncio",  # to shield what must not be cut short
        *("array", "threading"),  # numbers packed tightly, and a lock: no thread is started in core
    }
)
"""All that core may import: nothing here reads a file, a clock, a socket or the operating system."""

ACTIONS_MAY_NOT = frozenset(
    {
        *("ctypes", "fcntl", "multiprocessing", "os", "pathlib", "psutil", "pwd", "random", "shutil", "signal"),
        *("socket", "sqlite3", "subprocess", "threading", "time", "urllib"),
    }
)
"""An action touches the endpoint through its Host, so that the server can load it and a test can pass a fake."""

STANDARD_ONLY = {
    "disk/": "root processes open files through it before anything else is trusted",
    "agent/supervisor.py": "it must start, and stay small, whatever is broken in the packages of the agent",
    "agent/guard/": "it decides about every program that starts, so it must start first and stay small",
}

KEEPERS = frozenset(
    f"agent/host/{name}.py"
    for name in (
        *("program_keeper", "program_keeping", "program_child", "program_tree"),
        *("terminal_keeper", "terminal_keeping"),
    )
)
"""One process for each program or terminal: the standard library and one another, or it would not be small."""


def names(source: Source, allowed: frozenset[str]) -> Iterator[str]:
    """The layers that a file imports and may not."""
    for one in source.imports:
        if one.layer in BELOW and one.layer not in allowed | {source.layer} and not _is_entry(source, one):
            yield f"{source.name}:{one.line} imports {one.module}: {WHY[source.layer]}"


def _is_entry(source: Source, one: Import) -> bool:
    named = one.module in ENTRIES or one.module.rpartition(".")[0] in ENTRIES
    return source.layer == "cli" and one.lazy and named


def layers() -> set[str]:
    """The layers that there are."""
    return {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}


def test_every_layer_has_its_rule() -> None:
    """A new folder of the package needs a line above that says what it may import, and why."""
    assert layers() <= set(BELOW)
    assert set(BELOW) == set(WHY)


@pytest.mark.parametrize("layer", BELOW)
def test_layers_import_only_what_is_below(layer: str) -> None:
    """core <- actions <- derive; agent, server and client beside one another; cli and demo on top."""
    wrong = [line for one in package() if one.layer == layer for line in names(one, BELOW[layer])]
    assert not wrong, "\n".join(wrong)


def test_core_is_pure() -> None:
    """Core does no I/O, has no clock and knows no operating system."""
    wrong = [
        f"{one.name}:{found.line} imports {found.module}: core is pure; it may import {', '.join(sorted(CORE_MAY))}"
        for one in package()
        if one.layer == "core"
        for found in one.imports
        if found.top not in CORE_MAY | {"stanch"}
    ]
    assert not wrong, "\n".join(wrong)


def test_actions_need_nothing_installed() -> None:
    """An action imports the standard library, pydantic and core, and touches no operating system."""
    wrong = [
        f"{one.name}:{found.line} imports {found.module}: {WHY['actions']}, and touches the endpoint through its Host"
        for one in package()
        if one.layer == "actions" and one.path.name != "__init__.py"
        for found in one.imports
        if found.top in ACTIONS_MAY_NOT or found.top not in sys.stdlib_module_names | {"stanch", "pydantic"}
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("place", "why"), STANDARD_ONLY.items(), ids=STANDARD_ONLY)
def test_some_places_use_the_standard_library_only(place: str, why: str) -> None:
    """What must run when everything else is broken imports nothing that can be broken."""
    wrong = [
        f"{one.name}:{found.line} imports {found.module}: standard library only, since {why}"
        for one in package()
        if one.inside.startswith(place)
        for found in one.imports
        if found.top not in sys.stdlib_module_names and not found.module.startswith(f"stanch.{place.strip('/')}")
    ]
    assert not wrong, "\n".join(wrong)


def test_keepers_are_small() -> None:
    """What runs beside every program that is run imports the standard library and its own parts only."""
    keepers = [one for one in package() if one.inside in KEEPERS]
    assert len(keepers) == len(KEEPERS)
    inside = {f"stanch.{one.removesuffix('.py').replace('/', '.')}" for one in KEEPERS}
    wrong = [
        f"{one.name}:{found.line} imports {found.module}"
        for one in keepers
        for found in one.imports
        if found.top not in sys.stdlib_module_names and not {found.module, found.module.rpartition(".")[0]} & inside
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_imported_relatively() -> None:
    """One spelling for each module, so that the rules above see every import."""
    import_from = [(one, node) for one in package() for node in one.relative_imports]
    assert not [f"{one.name}:{node.lineno}" for one, node in import_from]
