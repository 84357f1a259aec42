"""The nft child: transactions, complaints, and the way out when it misbehaves."""

import asyncio

import pytest
from structlog.testing import capture_logs

from stanch.agent.host import nft as module
from stanch.agent.host.nft import Nft
from stanch.agent.host.run import Child
from stanch.core.errors import ActionFailed, Invalid, TimedOut, Unsupported
from tests.netns import Netns, netns

pytestmark = pytest.mark.root


@pytest.fixture
def namespace():
    """An empty network namespace."""
    with netns() as made:
        yield made


def use(namespace: Netns, session, **options):
    """Run a session with an nft inside the namespace; what it logged comes with the result."""

    async def main():
        nft = Nft(**options)
        with capture_logs() as logs:
            try:
                return await session(nft), logs
            finally:
                await nft.close()

    return namespace.run(main)


@pytest.mark.parametrize("keep_child", [True, False])
def test_a_transaction_is_in_force_when_it_returns(namespace, keep_child):
    """What was applied is listed, by the child and without it."""

    async def session(nft: Nft):
        assert await nft.table("inet", "t") is None
        await nft.apply("add table inet t; add set inet t s { type mark; elements = { 7 }; };")
        return await nft.table("inet", "t")

    listing, logs = use(namespace, session, keep_child=keep_child)
    assert [item["set"]["elem"] for item in listing["nftables"] if "set" in item] == [[7]]
    assert logs == []


@pytest.mark.parametrize("keep_child", [True, False])
def test_a_refused_transaction_changes_nothing(namespace, keep_child):
    """An error in one statement undoes those before it, and nft's words are in the error."""

    async def session(nft: Nft):
        with pytest.raises(ActionFailed, match="No such file or directory"):
            await nft.apply("add table inet t; delete table inet nowhere;")
        with pytest.raises(ActionFailed, match="syntax error"):
            await nft.apply("add table inet t; nonsense")
        return await nft.table("inet", "t")

    listing, _ = use(namespace, session, keep_child=keep_child)
    assert listing is None


def test_a_check_changes_nothing(namespace):
    """A dry run finds errors and applies nothing."""

    async def session(nft: Nft):
        await nft.check("add table inet t;")
        with pytest.raises(ActionFailed):
            await nft.check("delete table inet nowhere;")
        return await nft.table("inet", "t")

    assert use(namespace, session)[0] is None


def test_changes_of_others_are_seen(namespace):
    """The child keeps no stale picture of the kernel."""

    async def session(nft: Nft):
        await nft.apply("add table inet t;")
        await asyncio.to_thread(namespace.command, "nft delete table inet t")
        assert await nft.table("inet", "t") is None
        await asyncio.to_thread(namespace.command, "nft add table inet t")
        return await nft.table("inet", "t")

    assert use(namespace, session)[0] is not None


def test_many_at_once_take_turns(namespace):
    """Concurrent commands each get their own answer."""

    async def session(nft: Nft):
        await asyncio.gather(*(nft.apply(f"add table inet t{number};") for number in range(10)))
        listings = await asyncio.gather(*(nft.table("inet", f"t{number}") for number in range(12)))
        return [listing and listing["nftables"][1]["table"]["name"] for listing in listings]

    assert use(namespace, session)[0] == [*(f"t{number}" for number in range(10)), None, None]


def test_ten_thousand_networks_fit_in_one_transaction(namespace):
    """The largest order that people may give goes through the pipe and comes back."""

    async def session(nft: Nft):
        elements = ", ".join(f"2001:db8:{number:x}::/64" for number in range(0, 20_000, 2))
        await nft.apply(
            f"table inet t {{ set s {{ type ipv6_addr; flags interval; elements = {{ {elements} }}; }}; }};"
        )
        return await nft.table("inet", "t")

    listing, logs = use(namespace, session)
    assert sum(len(item["set"]["elem"]) for item in listing["nftables"] if "set" in item) == 10_000
    assert logs == []


@pytest.mark.parametrize(
    "broken",
    [
        ["true"],  # dies at once
        ["sh", "-c", "read -r line; exit 1"],  # dies on the first command
        ["sh", "-c", "cat > /dev/null"],  # never answers
        ["sh", "-c", "while :; do echo flood; done"],  # answers without end
    ],
)
def test_a_misbehaving_child_is_done_without(namespace, monkeypatch, broken):
    """A child that dies, hangs or floods is replaced by an nft of its own for the command, and we say so."""

    class Broken(Child):
        @classmethod
        async def start(cls, argv, *, output_limit):
            return await super().start(broken, output_limit=100_000)

    monkeypatch.setattr(module, "Child", Broken)

    async def session(nft: Nft):
        await nft.apply("add table inet t;")
        return await nft.table("inet", "t")

    listing, logs = use(namespace, session, within=module.seconds(0.5))
    assert listing is not None
    assert {line["event"] for line in logs} == {"nft-child-misbehaved"}


def test_a_new_child_starts_with_the_next_command(namespace):
    """After the loss of a child the next command has one again."""

    async def session(nft: Nft):
        await nft.apply("add table inet t;")
        lost = nft._child
        await lost.close()
        await nft.apply("add table inet t;")
        assert nft._child is not lost
        return nft._child.alive

    assert use(namespace, session) == (True, [])


def test_a_cancelled_command_leaves_no_half_answer(namespace):
    """After a cancelled command the next one does not get its answer."""

    async def session(nft: Nft):
        await nft.apply("add table inet t;")
        task = asyncio.create_task(nft.table("inet", "t"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await nft.table("inet", "other")

    assert use(namespace, session)[0] is None


def test_nft_that_hangs_altogether_is_given_up(namespace, monkeypatch):
    """If neither the child nor a program of its own answers, the caller hears it within its time."""

    class Silent(Child):
        @classmethod
        async def start(cls, argv, *, output_limit):
            return await super().start(["sh", "-c", "cat > /dev/null"], output_limit=output_limit)

    async def hang(argv, **options):
        return await real(["sh", "-c", "sleep 100"], **options)

    real = module.run
    monkeypatch.setattr(module, "Child", Silent)
    monkeypatch.setattr(module, "run", hang)

    async def session(nft: Nft):
        with pytest.raises(TimedOut):
            await nft.apply("add table inet t;")

    use(namespace, session, within=module.seconds(0.2))


@pytest.mark.parametrize(
    "words", ["Operation not permitted", "Operation not supported", "JSON support not compiled-in"]
)
def test_what_the_kernel_cannot_is_unsupported(words):
    """Missing rights and missing kernel options are told apart from failures, with what would help."""
    with pytest.raises(Unsupported) as raised:
        module._raise_complaint(f"Error: Could not process rule: {words}")
    assert raised.value.hint


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"nftables": ' + "[" * 100_000, "{}x", "{}", '{"nftables": [{"table": 1}]}', '{"nftables": 7}']
)
def test_a_listing_that_is_no_listing_is_invalid(line):
    """Output that is not nft's JSON about one table is an error of ours."""
    with pytest.raises(Invalid):
        module._key(module._parse_listing(line))


@pytest.mark.parametrize("keep_child", [True, False])
def test_several_tables_are_listed_at_once(namespace, keep_child):
    """Each table that is asked for is answered in its place, and one that is absent is None."""

    async def session(nft: Nft):
        await nft.apply("add table netdev t; add table inet u;")
        found = await nft.tables(("inet", "t"), ("netdev", "t"), ("inet", "u"))
        return [listing and listing["nftables"][1]["table"]["family"] for listing in found]

    assert use(namespace, session, keep_child=keep_child)[0] == [None, "netdev", "inet"]
