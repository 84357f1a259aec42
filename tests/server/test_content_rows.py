"""Which version an endpoint should have: a model of steps, against the tables."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from stanch.core.content import PackRef
from stanch.core.errors import Conflict
from stanch.server import content_rows
from stanch.server.groups import Group
from stanch.server.store.database import open_engine
from stanch.server.store.migrate import upgrade
from stanch.server.store.tables import content, content_versions, groups

NOW = datetime(2026, 11, 24, tzinfo=UTC)
GROUPS = ("all", "web")
STEPS = st.lists(
    st.tuples(st.sampled_from(GROUPS), st.sampled_from([1, 2, 3, None, "back"])),
    max_size=12,
)


def ref(name: str, version: int) -> PackRef:
    return PackRef(name=name, kind="yara", version=version, sha256=f"{version:064x}", size=1)


def test_the_first_group_that_has_something_decides() -> None:
    """For each name by itself, whatever the other groups have."""
    published = {"web": {"a": ref("a", 1)}, "all": {"a": ref("a", 2), "b": ref("b", 1)}}
    mine = [Group(name=name, labels=frozenset(), rank=n) for n, name in enumerate(("web", "db", "all"))]
    assert content_rows.packs_of(mine, published) == (ref("a", 1), ref("b", 1))
    assert content_rows.packs_of(reversed(mine), published) == (ref("a", 2), ref("b", 1))
    assert content_rows.packs_of([], published) == ()


def test_the_digest_tells_versions_apart() -> None:
    """And nothing from something."""
    digests = {content_rows.digest(some) for some in ((), (ref("a", 1),), (ref("a", 2),), (ref("b", 1),))}
    assert len(digests) == 4
    assert content_rows.digest(()) == content_rows.NOTHING


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_steps_are_a_stack_of_each_group(steps: list[tuple[str, int | str | None]]) -> None:
    """Publishing puts one on it, unless it is the same; a rollback takes the last one off, but never the first."""
    model: dict[str, list[int | None]] = {group: [] for group in GROUPS}
    with TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{Path(folder)}/db", pool_size=1)
        upgrade(engine)
        with engine.begin() as connection:
            _fill(connection)
            for group, step in steps:
                _step(connection, model[group], group, step)
                expected = {name: stack[-1] for name, stack in model.items() if stack and stack[-1] is not None}
                found = {one.group: one.version for one in content_rows.publications(connection, "apt")}
                assert found == expected
                current = content_rows.current(connection)
                assert {name: some["apt"].version for name, some in current.items()} == expected
        engine.dispose()


def _fill(connection) -> None:
    row = {"name": "web", "labels": [], "rank": 1, "description": "", "settings": {}, "version": 0, "changed_by": ""}
    connection.execute(insert(groups), row)
    connection.execute(insert(content), {"name": "apt", "kind": "yara", "newest": 3})
    about = {"content": "apt", "size": 1, "files": 1, "rules": 1, "problems": 0, "note": "", "created": NOW}
    for version in (1, 2, 3):
        one = {"version": version, "sha256": f"{version:064x}", "created_by": "ada", "lint": {}}
        connection.execute(insert(content_versions), {**about, **one})


def _step(connection, stack: list[int | None], group: str, step: int | str | None) -> None:
    if step != "back":
        changed = content_rows.publish(connection, "apt", group, step, by="ada", at=NOW)
        assert changed == ((stack[-1] if stack else None) != step)
        if changed:
            stack.append(step)
        return
    savepoint = connection.begin_nested()
    try:
        before, after = content_rows.roll_back(connection, "apt", group, by="bob", at=NOW)
    except Conflict:
        savepoint.rollback()
        assert len(stack) < 2
    else:
        savepoint.commit()
        assert (stack.pop(), stack[-1]) == (before, after)
