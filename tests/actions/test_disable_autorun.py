"""Is what starts by itself disabled truthfully, written down, and enabled again exactly, wherever the agent dies?"""

from datetime import timedelta

import pytest

from stanch.actions.disable_autorun import (
    MAX_AT_ONCE,
    DisableAutorun,
    EnableAutorun,
    disable_autorun,
    enable_autorun,
)
from stanch.core.action import Verdict
from stanch.core.autoruns import Method, Place
from stanch.core.disabling import MAX_DISABLED, effect_name
from stanch.core.errors import ActionFailed, Conflict, Invalid, NotFound, Protected, TooLarge, Unsupported
from stanch.core.types import hours, minutes
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step, killed_twice, run_again

SERVICE, CRONTAB, SCRIPT = "/etc/systemd/system/miner.service", "/etc/cron.d/miner", "/etc/profile.d/miner.sh"
ALL = EnableAutorun(all=True)


async def fresh():
    """An endpoint on which a unit, a line of a crontab and a script start by themselves."""
    endpoint = FakeEndpoint()
    autoruns = endpoint.autoruns
    unit = autoruns.add("miner.service", SERVICE, running=True)
    autoruns.taking.add(unit.id)
    autoruns.add("miner", CRONTAB, place=Place.CRON, line=1, command="@reboot root /tmp/x")
    autoruns.add("miner.sh", SCRIPT, place=Place.SHELL)
    autoruns.add("cups.service", "/usr/lib/systemd/system/cups.service", package="cups")
    endpoint.files.content.update({SERVICE: b"[Service]", SCRIPT: b"/tmp/x &", CRONTAB: b"@reboot root /tmp/x"})
    return endpoint


@pytest.fixture
async def endpoint():
    return await fresh()


def ids(endpoint):
    """Those of the attacker's three."""
    return tuple(one.id for one in endpoint.autoruns.there[:3])


def three(endpoint, **more):
    """All three."""
    return DisableAutorun(autorun=ids(endpoint), **more)


async def disabled():
    """An endpoint on which another task has disabled all three ten minutes ago."""
    endpoint = await fresh()
    await disable_autorun.run(endpoint.host, three(endpoint, duration=hours(1)))
    endpoint.clock.advance(minutes(10))
    endpoint.next_task("tsk_2")
    endpoint.life.restart()
    return endpoint


async def verdict(endpoint, action, params, result):
    """What verify sees."""
    return (await action.verify(endpoint.host, params, result)).verdict


# --- disable ---------------------------------------------------------------------------------------------------------


async def test_disable_keeps_all_three_from_starting(endpoint):
    """A unit is masked and stopped, a line commented out, a file in the vault; each is a lasting effect."""
    result = await disable_autorun.run(endpoint.host, three(endpoint))
    assert [one.method for one in result.disabled] == [Method.MASK, Method.LINE, Method.VAULT]
    assert [one.item is not None for one in result.disabled] == [True, False, True]
    assert result.changed
    assert set(endpoint.effects.held) == {effect_name(one) for one in ids(endpoint)}
    assert {SERVICE, SCRIPT} & set(endpoint.files.content) == set()
    assert endpoint.autoruns.running == []
    assert {Place.SYSTEMD_UNIT, Place.CRON, Place.SHELL} == set(endpoint.autoruns.reloaded)
    assert await verdict(endpoint, disable_autorun, three(endpoint), result) is Verdict.IN_PLACE


async def test_the_effect_tells_people_what_and_keeps_how_to_itself(endpoint):
    """The server learns name, place and path; how it is taken back stays at the endpoint."""
    await disable_autorun.run(endpoint.host, three(endpoint))
    effect = endpoint.effects.held[effect_name(ids(endpoint)[1])]
    assert effect.detail == {"name": "miner", "place": "cron", "path": CRONTAB, "method": "line"}
    assert effect.private["way"]["lines"] == ["@reboot root /tmp/x"]
    assert effect.lift_action == enable_autorun.name
    assert enable_autorun.parse(effect.lift_params) == EnableAutorun(autorun=(ids(endpoint)[1],), forget=True)


async def test_units_go_on_if_told_so(endpoint):
    """Without stop, the unit is only kept from starting again, and not started when it is enabled."""
    await disable_autorun.run(endpoint.host, three(endpoint, stop=False))
    assert endpoint.autoruns.running == [ids(endpoint)[0]]
    endpoint.next_task("tsk_2")
    await enable_autorun.run(endpoint.host, ALL)
    assert "autoruns.start" not in endpoint.life.steps


async def test_what_runs_of_others_is_told(endpoint):
    """Of what is no unit, people learn that it goes on running; of units alone, nothing."""
    result = await disable_autorun.run(endpoint.host, three(endpoint))
    assert any("kill-process" in one for one in result.notes)
    endpoint.autoruns.complains = ("systemd does not run from here",)
    result = await disable_autorun.run(endpoint.host, DisableAutorun(unit=("cups",)))
    assert result.notes == ("systemd does not run from here",)


async def test_a_unit_by_its_name_and_all_of_a_file(endpoint):
    """People who know what they want name a unit, with or without its kind, or a file."""
    result = await disable_autorun.run(endpoint.host, DisableAutorun(unit=("miner", "cups.service"), path=CRONTAB))
    assert [one.name for one in result.disabled] == ["miner.service", "miner", "cups.service"]


async def test_a_line_goes_with_its_file(endpoint):
    """Of a file that goes to the vault as a whole, its lines need not be commented out before."""
    endpoint.autoruns.add("preload", SCRIPT, place=Place.PRELOAD, line=1, command="LD_PRELOAD=/tmp/x")
    result = await disable_autorun.run(endpoint.host, DisableAutorun(path=SCRIPT))
    assert [(one.name, one.method) for one in result.disabled] == [("miner.sh", Method.VAULT)]


async def test_disabled_already(endpoint):
    """What Stanch has disabled is told, by its id, its unit or its path; nothing is changed, and nothing to undo."""
    endpoint = await disabled()
    params = DisableAutorun(autorun=ids(endpoint)[:2], unit=("miner",), path=SCRIPT)
    result = await disable_autorun.run(endpoint.host, params)
    assert (result.changed, result.disabled, set(result.already)) == (False, (), set(ids(endpoint)))
    assert endpoint.life.steps == ["journal.record"]
    assert disable_autorun.undo_params(params, result) is None
    assert not (await disable_autorun.plan(endpoint.host, params)).changes


async def test_what_came_back_is_disabled_anew():
    """A file that an attacker has put there again goes, too; enabling brings back the last one."""
    endpoint = await disabled()
    endpoint.files.content[SCRIPT] = b"again"
    endpoint.autoruns.disabled.pop(ids(endpoint)[2])
    result = await disable_autorun.run(endpoint.host, DisableAutorun(path=SCRIPT))
    assert len(result.disabled) == 1
    assert SCRIPT not in endpoint.files.content
    endpoint.next_task("tsk_3")
    await enable_autorun.run(endpoint.host, ALL)
    assert endpoint.files.content[SCRIPT] == b"again"


async def test_nothing_that_is_needed(endpoint):
    """What the machine needs is refused with the reason, before anything is touched."""
    endpoint.autoruns.protected[ids(endpoint)[2]] = "the machine does not start without it"
    with pytest.raises(Unsupported, match="does not start without it"):
        await disable_autorun.run(endpoint.host, three(endpoint))
    assert endpoint.life.steps == []
    plan = await disable_autorun.plan(endpoint.host, three(endpoint))
    assert not plan.changes
    assert any("Will be refused: miner.sh" in one for one in plan.warnings)


async def test_no_protected_file(endpoint):
    """A file that must not be taken away is refused before anything is touched."""
    endpoint.files.protected[SCRIPT] = "it is Stanch's own"
    with pytest.raises(Protected):
        await disable_autorun.run(endpoint.host, three(endpoint))
    assert endpoint.life.steps == []


async def test_a_file_that_has_changed(endpoint):
    """One that cannot be disabled is as it was and not written down; the others are disabled, and the order fails."""
    endpoint.autoruns.changed.add(SERVICE)
    result = await disable_autorun.run(endpoint.host, three(endpoint))
    assert [one.name for one in result.not_disabled] == ["miner.service"]
    assert "changed" in result.not_disabled[0].why
    assert endpoint.files.content[SERVICE] == b"[Service]"
    assert effect_name(ids(endpoint)[0]) not in endpoint.effects.held
    assert await verdict(endpoint, disable_autorun, three(endpoint), result) is Verdict.ABSENT
    assert len(disable_autorun.undo_params(three(endpoint), result)[1].autorun) == 2


async def test_if_none_works_the_error_says_so(endpoint):
    """Of one, it is its own error; of several, one that names them."""
    endpoint.autoruns.changed |= {SERVICE, CRONTAB, SCRIPT}
    with pytest.raises(Conflict, match="None of 3 worked"):
        await disable_autorun.run(endpoint.host, three(endpoint))
    with pytest.raises(Conflict, match="has changed meanwhile"):
        await disable_autorun.run(endpoint.host, DisableAutorun(path=CRONTAB))
    assert endpoint.effects.held == {}
    assert {SERVICE, SCRIPT} <= set(endpoint.files.content)


async def test_what_cannot_be_taken_back_stays_written_down(endpoint):
    """A file that can neither be disabled nor put back is said to be in the vault; enabling finds it."""
    endpoint.autoruns.changed.add(SERVICE)
    params = DisableAutorun(unit=("miner",))
    endpoint.vault.before_take = lambda taking: endpoint.vault.fails.update(
        {taking.id: ActionFailed("the disk is full")}
    )
    with pytest.raises(Conflict, match="could not be taken back") as caught:
        await disable_autorun.run(endpoint.host, params)
    assert caught.value.got == "the disk is full"
    endpoint.vault.fails.clear()
    endpoint.next_task("tsk_2")
    await enable_autorun.run(endpoint.host, ALL)
    assert endpoint.files.content[SERVICE] == b"[Service]"


async def test_starting_again_all_the_same_is_seen(endpoint):
    """A file that is there again after the order, or an effect that is gone, is not in place."""
    result = await disable_autorun.run(endpoint.host, three(endpoint))
    endpoint.files.content[SCRIPT] = b"again"
    assert await verdict(endpoint, disable_autorun, three(endpoint), result) is Verdict.ABSENT
    del endpoint.files.content[SCRIPT]
    await endpoint.effects.drop(effect_name(ids(endpoint)[1]))
    assert await verdict(endpoint, disable_autorun, three(endpoint), result) is Verdict.ABSENT


async def test_what_is_nowhere(endpoint):
    """An id, a unit or a path that nothing has is said to be nowhere, and nothing is touched."""
    for params in (
        DisableAutorun(autorun=(*ids(endpoint), "f" * 16)),
        DisableAutorun(autorun=ids(endpoint), unit=("none",)),
        DisableAutorun(path="/etc/none"),
    ):
        with pytest.raises(NotFound):
            await disable_autorun.run(endpoint.host, params)
    assert endpoint.life.steps == []


async def test_an_order_has_a_bound(endpoint):
    """A file of very many lines is no case for one order."""
    for n in range(MAX_AT_ONCE + 1):
        endpoint.autoruns.add(f"key {n}", "/root/keys", place=Place.SSH_KEY, line=n + 1, command=f"k{n}")
    with pytest.raises(TooLarge):
        await disable_autorun.run(endpoint.host, DisableAutorun(path="/root/keys"))
    assert endpoint.life.steps == []


async def test_an_endpoint_has_a_bound(endpoint):
    """There is only so much that can be disabled at a time; that is seen before anything is touched."""
    for n in range(MAX_DISABLED):
        name = effect_name(f"{n:016}")
        await endpoint.effects.hold(name, lift_action="enable_autorun", lift_params={}, detail={}, lasts=None)
    endpoint.life.restart()
    with pytest.raises(Conflict, match="Too many"):
        await disable_autorun.run(endpoint.host, DisableAutorun(autorun=ids(endpoint)))
    assert endpoint.life.steps == []


def test_disable_needs_something():
    """An order for nothing is no order, and an id has a form."""
    for params in ({}, {"stop": True}, {"autorun": ["x"]}):
        with pytest.raises(Invalid):
            disable_autorun.parse(params)


async def test_plan_says_how_and_what_to_know(endpoint):
    """The method, the place, what runs, whose file it is, and that the packaged unit counts again."""
    endpoint.autoruns.add("deb.sh", "/etc/profile.d/deb.sh", place=Place.SHELL, package="base-files", differs=True)
    params = DisableAutorun(
        autorun=(*ids(endpoint), endpoint.autoruns.there[3].id, endpoint.autoruns.there[4].id), duration=hours(1)
    )
    plan = await disable_autorun.plan(endpoint.host, params)
    assert plan.changes
    assert [one.what for one in plan.steps] == [
        "Take into the vault, and mask",
        "Stop",
        "Comment out",
        "Take into the vault",
        "Mask",
        "Take into the vault",
    ]
    assert f"{CRONTAB}:1" in plan.steps[2].target
    text = "\n".join(plan.warnings)
    assert "deb.sh: its file is of the package base-files: an upgrade may bring it back" in text
    assert "deb.sh: its file is another one than the package base-files brought" in text
    assert "It starts again in 1h." in text
    assert endpoint.life.steps == []


# --- enable ----------------------------------------------------------------------------------------------------------


async def test_enable_brings_all_back():
    """Files, lines and units are as they were, what ran runs, and nothing is in force or in the vault any more."""
    endpoint = await disabled()
    result = await enable_autorun.run(endpoint.host, EnableAutorun(autorun=ids(endpoint)))
    assert {one.id for one in result.enabled} == set(ids(endpoint))
    assert (endpoint.files.content[SERVICE], endpoint.files.content[SCRIPT]) == (b"[Service]", b"/tmp/x &")
    assert (endpoint.autoruns.disabled, endpoint.effects.held, endpoint.vault.kept) == ({}, {}, {})
    assert endpoint.autoruns.running == [ids(endpoint)[0]]
    assert await verdict(endpoint, enable_autorun, ALL, result) is Verdict.IN_PLACE


async def test_undo_is_the_other_one():
    """Each order is taken back by the other: of the same ids, for the time that was left."""
    endpoint = await disabled()
    result = await enable_autorun.run(endpoint.host, ALL)
    name, params = enable_autorun.undo_params(ALL, result)
    assert (name, set(params.autorun), params.duration) == ("disable_autorun", set(ids(endpoint)), minutes(50))
    endpoint.next_task("tsk_3")
    again = await disable_autorun.run(endpoint.host, params)
    name, back = disable_autorun.undo_params(params, again)
    assert (name, set(back.autorun)) == ("enable_autorun", set(ids(endpoint)))


async def test_what_stanch_did_not_disable(endpoint):
    """Only what Stanch has disabled can be enabled; it says what that is."""
    with pytest.raises(NotFound) as caught:
        await enable_autorun.run(endpoint.host, EnableAutorun(autorun=ids(endpoint)))
    assert caught.value.expected == "nothing is disabled"
    endpoint = await disabled()
    with pytest.raises(NotFound) as caught:
        await enable_autorun.run(endpoint.host, EnableAutorun(autorun=("f" * 16,)))
    assert f"{ids(endpoint)[2]} miner.sh" in caught.value.expected


async def test_enable_all_of_nothing(endpoint):
    """Where nothing is disabled, enabling all of it changes nothing."""
    result = await enable_autorun.run(endpoint.host, ALL)
    assert (result.changed, result.enabled) == (False, ())
    assert enable_autorun.undo_params(ALL, result) is None
    assert not (await enable_autorun.plan(endpoint.host, ALL)).changes


async def test_a_line_that_is_lost_is_told_and_can_be_forgotten():
    """It stays in force until somebody says that it may be forgotten; the others come back all the same."""
    endpoint = await disabled()
    lost = ids(endpoint)[1]
    endpoint.autoruns.lost.add(lost)
    result = await enable_autorun.run(endpoint.host, ALL)
    assert [one.id for one in result.not_enabled] == [lost]
    assert "@reboot root /tmp/x" in result.not_enabled[0].why
    assert set(endpoint.effects.held) == {effect_name(lost)}
    assert await verdict(endpoint, enable_autorun, ALL, result) is Verdict.ABSENT
    endpoint.next_task("tsk_3")
    with pytest.raises(Conflict, match="cannot be put back"):
        await enable_autorun.run(endpoint.host, ALL)
    endpoint.next_task("tsk_4")
    result = await enable_autorun.run(endpoint.host, EnableAutorun(all=True, forget=True))
    assert [one.id for one in result.forgotten] == [lost]
    assert endpoint.effects.held == {}


async def test_what_may_still_come_back_is_not_forgotten():
    """An item that cannot be put back just now stays disabled, also if what is lost may be forgotten."""
    endpoint = await disabled()
    item = endpoint.effects.held[effect_name(ids(endpoint)[2])].private["way"]["item"]
    endpoint.vault.fails[item] = ActionFailed("the disk is full")
    params = EnableAutorun(autorun=(ids(endpoint)[2],), forget=True)
    with pytest.raises(ActionFailed, match="disk is full"):
        await enable_autorun.run(endpoint.host, params)
    way = endpoint.effects.held[effect_name(ids(endpoint)[2])]
    assert way.private["way"]["item"] in endpoint.vault.kept
    assert ids(endpoint)[2] in endpoint.autoruns.disabled


async def test_a_file_that_came_back_otherwise():
    """Restored by its order, it counts as enabled; removed from the vault for good, it is told."""
    endpoint = await disabled()
    ways = {name: one.private["way"] for name, one in endpoint.effects.held.items()}
    await endpoint.vault.remove(ways[effect_name(ids(endpoint)[0])]["item"])
    await endpoint.vault.remove(ways[effect_name(ids(endpoint)[2])]["item"])
    endpoint.files.content[SCRIPT] = b"restored"
    result = await enable_autorun.run(endpoint.host, ALL)
    assert {one.name for one in result.enabled} == {"miner.sh", "miner"}
    assert "not in the vault any more" in result.not_enabled[0].why
    assert endpoint.files.content[SCRIPT] == b"restored"


async def test_something_else_at_its_place():
    """A file that somebody put there is not replaced."""
    endpoint = await disabled()
    endpoint.files.content[SCRIPT] = b"other"
    result = await enable_autorun.run(endpoint.host, ALL)
    assert [one.name for one in result.not_enabled] == ["miner.sh"]
    assert endpoint.files.content[SCRIPT] == b"other"
    assert ids(endpoint)[2] in endpoint.autoruns.disabled


async def test_what_could_not_come_back_is_noted():
    """An attribute that was lost, or a mask that was another thing by then, is told."""
    endpoint = await disabled()
    endpoint.vault.lost = ("flag immutable: none here",)
    endpoint.autoruns.stubborn[ids(endpoint)[0]] = ("something else is there",)
    result = await enable_autorun.run(endpoint.host, ALL)
    assert "miner.service: something else is there" in result.notes
    assert f"{SCRIPT}: flag immutable: none here" in result.notes


async def test_plan_of_enable():
    """What would come back and start, and what is not as it was left."""
    endpoint = await disabled()
    endpoint.autoruns.lost.add(ids(endpoint)[1])
    plan = await enable_autorun.plan(endpoint.host, ALL)
    assert [one.what for one in plan.steps].count("Start") == 1
    assert {"Unmask", "Put back from the vault", "Put back the line of"} <= {one.what for one in plan.steps}
    assert plan.warnings == ("miner is not as Stanch left it",)
    assert endpoint.life.steps == []


def test_enable_needs_a_clear_word():
    """Either some or all."""
    for params in ({}, {"all": True, "autorun": ["0" * 16]}):
        with pytest.raises(Invalid):
            enable_autorun.parse(params)


# --- kill -9 ---------------------------------------------------------------------------------------------------------


async def test_kill_at_every_step_of_disable():
    """Wherever it dies, and dies again: afterwards all is disabled, as if nothing had happened."""
    params = three(await fresh(), duration=timedelta(hours=1))
    clean = await fresh()
    await disable_autorun.run(clean.host, params)
    for one in await killed_at_every_step(fresh, disable_autorun, params):
        await run_again(one, disable_autorun, params)
        same(one, clean)
    for one in await killed_twice(fresh, disable_autorun, params, again=run_again):
        await run_again(one, disable_autorun, params)
        same(one, clean)


async def test_kill_at_every_step_of_enable():
    """Wherever it dies, and dies again: afterwards all is as it was."""
    clean = await disabled()
    await enable_autorun.run(clean.host, ALL)
    for one in await killed_at_every_step(disabled, enable_autorun, ALL):
        result = await run_again(one, enable_autorun, ALL)
        assert len(result.enabled) == 3
        same(one, clean)
    for one in await killed_twice(disabled, enable_autorun, ALL, again=run_again):
        await run_again(one, enable_autorun, ALL)
        same(one, clean)


async def test_the_effect_goes_last():
    """As long as anything is left to be done, the effect is there: the lift of a deadline goes on with it."""
    for one in await killed_at_every_step(disabled, enable_autorun, ALL):
        started = ids(one)[0] in one.autoruns.running
        assert one.effects.held
        assert started or len(one.effects.held) == 3


def same(one, other):
    """Two endpoints in the same state."""
    assert one.files.content == other.files.content
    assert one.autoruns.disabled == other.autoruns.disabled
    assert one.autoruns.running == other.autoruns.running
    assert set(one.effects.held) == set(other.effects.held)
    assert set(one.vault.kept) == set(other.vault.kept)


async def test_a_cancel_in_the_middle_is_completed_or_lifted(endpoint):
    """After a crash, it is in place as soon as one is disabled; before that, it is absent."""
    for one in await killed_at_every_step(fresh, disable_autorun, three(endpoint)):
        seen = await verdict(one, disable_autorun, three(endpoint), None)
        assert (seen is Verdict.IN_PLACE) == bool(one.autoruns.disabled)
