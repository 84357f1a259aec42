"""The local policy: what its owner forbids stays forbidden, and a file that cannot be understood forbids everything."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions import load
from stanch.agent.local_policy import LocalPolicy, parse, paths_of
from stanch.core.action import Params
from stanch.core.errors import ForbiddenHere, Invalid
from stanch.core.types import EndpointPath
from tests.fakes.agent import Machine, Script, scripted

ACTIONS = load()


def policy_of(folder: Path, text: str) -> LocalPolicy:
    (folder / "agent.toml").write_text(text)
    return LocalPolicy(folder / "agent.toml")


def ask(policy: LocalPolicy, action: str, **params: object) -> None:
    declared = ACTIONS[action]
    policy.check(declared, declared.parse(params))


def test_no_file_no_limits(tmp_path: Path) -> None:
    """A machine without the file accepts everything, and its digest is empty."""
    policy = LocalPolicy(tmp_path / "agent.toml")
    ask(policy, "release")
    policy.check_links(ACTIONS["get_file"].parse({"path": "/etc/passwd"}))
    assert (policy.digest, policy.broken, policy.warnings(ACTIONS)) == ("", None, ())


def test_forbidden_and_allowed_actions(tmp_path: Path) -> None:
    """A forbidden action, or one that is not on the list of allowed ones, is refused, in either spelling."""
    policy = policy_of(tmp_path, '[actions]\nforbid = ["kill-process"]\n')
    ask(policy, "release")
    with pytest.raises(ForbiddenHere, match="kill-process"):
        ask(policy, "kill_process", pid=7)
    policy = policy_of(tmp_path, '[actions]\nallow = ["list_processes", "release"]\nforbid = ["release"]\n')
    ask(policy, "list_processes")
    for name in ("release", "isolate"):
        with pytest.raises(ForbiddenHere):
            ask(policy, name)


@pytest.mark.parametrize("action", ["malware_scan", "critical_areas_scan"])
def test_a_scan_is_no_way_around(tmp_path: Path, action: str) -> None:
    """Who forbids quarantine or ending processes forbids a scan that is to do it with its finds, and no other."""
    policy = policy_of(tmp_path, '[actions]\nforbid = ["quarantine"]\n')
    ask(policy, action)
    ask(policy, action, end_processes=True)
    with pytest.raises(ForbiddenHere, match="besides") as refused:
        ask(policy, action, quarantine=True)
    assert refused.value.got == "quarantine"
    policy = policy_of(tmp_path, f'[actions]\nallow = ["{action}", "quarantine"]\n')
    ask(policy, action, quarantine=True)
    with pytest.raises(ForbiddenHere, match="besides"):
        ask(policy, action, end_processes=True)


def test_quarantine_is_no_way_around(tmp_path: Path) -> None:
    """Who forbids ending processes forbids to end those that run what is put away."""
    policy = policy_of(tmp_path, '[actions]\nforbid = ["kill-process"]\n')
    ask(policy, "quarantine", path=["/srv/a"])
    with pytest.raises(ForbiddenHere, match="besides"):
        ask(policy, "quarantine", path=["/srv/a"], end_processes=True)


@pytest.mark.parametrize("text", [None, "", "[actions]\nallow = ['shell']\n", "[actions]\nenable = ['isolate']\n"])
def test_the_shell_must_be_switched_on(tmp_path: Path, text: str | None) -> None:
    """Without a line that names it, file or no file, the shell is refused, and told how it would be switched on."""
    policy = LocalPolicy(tmp_path / "agent.toml") if text is None else policy_of(tmp_path, text)
    with pytest.raises(ForbiddenHere, match="has not switched shell on") as refused:
        ask(policy, "shell")
    assert refused.value.hint is not None
    _, _, line = refused.value.hint.partition("[actions]: ")
    assert str(tmp_path / "agent.toml") in refused.value.hint
    ask(policy_of(tmp_path, f"[actions]\n{line}\n"), "shell")


def test_a_line_that_is_there_is_kept_in_the_advice(tmp_path: Path) -> None:
    """Who follows the advice loses nothing that was switched on before."""
    with pytest.raises(ForbiddenHere) as refused:
        ask(policy_of(tmp_path, "[actions]\nenable = ['other']\n"), "shell")
    assert refused.value.hint is not None
    assert 'enable = ["other", "shell"]' in refused.value.hint


def test_what_is_switched_on_may_still_be_forbidden(tmp_path: Path) -> None:
    """`forbid` wins over `enable`, too."""
    policy = policy_of(tmp_path, "[actions]\nenable = ['shell']\nforbid = ['shell']\n")
    with pytest.raises(ForbiddenHere, match="forbids shell"):
        ask(policy, "shell")
    assert policy.warnings(ACTIONS) == ()


def test_a_shell_makes_every_other_limit_void(tmp_path: Path) -> None:
    """The owner who switches it on is told so."""
    policy = policy_of(tmp_path, "[actions]\nenable = ['shell']\n[paths]\nforbid = ['/root']\n")
    assert policy.warnings(ACTIONS) == ("shell is enabled: no other limit in this file binds whoever is given it",)


@pytest.mark.parametrize(
    "path", ["/root", "/root/", "/root/.ssh/id", "//root/x", "/tmp/../root/x", "/./root", r"/ro\x6ft/x"]
)
def test_forbidden_paths_by_whole_components(tmp_path: Path, path: str) -> None:
    """A forbidden folder covers everything below, however it is written; its namesakes stay allowed."""
    policy = policy_of(tmp_path, '[paths]\nforbid = ["/root"]\n')
    with pytest.raises(ForbiddenHere, match="forbids this path"):
        ask(policy, "get_file", path=path)
    ask(policy, "get_file", path="/rooted/x")
    ask(policy, "get_file", path="/home/root")


def test_links_lead_nowhere_forbidden(tmp_path: Path) -> None:
    """Links to a forbidden path are found, and so are paths that a forbidden link stands for."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "link").symlink_to("secret")
    for forbidden, asked in (("secret", "link"), ("link", "secret")):
        policy = policy_of(tmp_path, f'[paths]\nforbid = ["{tmp_path}/{forbidden}"]\n')
        params = ACTIONS["get_file"].parse({"path": f"{tmp_path}/{asked}/x"})
        policy.check(ACTIONS["get_file"], params)
        with pytest.raises(ForbiddenHere):
            policy.check_links(params)
        policy.check_links(ACTIONS["get_file"].parse({"path": f"{tmp_path}/other"}))


BROKEN = {
    "no TOML": "actions = [",
    "no text": "\udcff",
    "unknown key": '[actions]\nforbids = ["isolate"]\n',
    "wrong type": '[actions]\nforbid = "isolate"\n',
    "relative path": '[paths]\nforbid = ["root"]\n',
    "section that is no table": "paths = 7",
    "enormous": "#" * 2_000_000,
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_refuses_everything(tmp_path: Path, how: str) -> None:
    """A file that cannot be understood forbids every action and says what is wrong."""
    (tmp_path / "agent.toml").write_bytes(BROKEN[how].encode("utf-8", "surrogateescape"))
    policy = LocalPolicy(tmp_path / "agent.toml")
    assert policy.broken
    assert len(policy.digest) == 64
    assert policy.warnings(ACTIONS)
    for action in ("list_processes", "release"):
        with pytest.raises(ForbiddenHere, match="cannot be read"):
            ask(policy, action)


@pytest.mark.parametrize("mode", [0o666, 0o620])
def test_a_file_that_others_may_change_is_broken(tmp_path: Path, mode: int) -> None:
    """A limit that anybody may lift is no limit."""
    (tmp_path / "agent.toml").write_text("")
    (tmp_path / "agent.toml").chmod(mode)
    broken = LocalPolicy(tmp_path / "agent.toml").broken
    assert broken is not None
    assert "Others may change it" in broken


def test_what_is_no_file_is_broken(tmp_path: Path) -> None:
    """A folder or a FIFO in the file's place refuses orders instead of stopping the agent."""
    os.mkfifo(tmp_path / "agent.toml")
    assert LocalPolicy(tmp_path / "agent.toml").broken
    assert LocalPolicy(tmp_path).broken


def test_sections_of_others_are_left_alone(tmp_path: Path) -> None:
    """The file may hold other settings, but a change of any is seen in the digest."""
    policy = policy_of(tmp_path, "[log]\nlevel = 3\n")
    before = policy.digest
    ask(policy, "isolate")
    assert not policy.refresh()
    policy_of(tmp_path, "[log]\nlevel = 4\n")
    assert policy.refresh()
    assert policy.digest not in {before, ""}


def test_it_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A change takes effect at the next look, a repair too."""
    policy = policy_of(tmp_path, "")
    ask(policy, "isolate")
    policy_of(tmp_path, "broken")
    assert policy.refresh()
    with pytest.raises(ForbiddenHere):
        ask(policy, "isolate")
    (tmp_path / "agent.toml").unlink()
    assert policy.refresh()
    ask(policy, "isolate")
    assert not policy.refresh()


def test_forbidding_the_way_back_is_warned_of(tmp_path: Path) -> None:
    """Whoever allows isolation but forbids release is told what that means."""
    policy = policy_of(tmp_path, '[actions]\nforbid = ["release"]\n')
    assert policy.warnings(ACTIONS) == ("isolate is allowed, but release, which takes it back, is forbidden",)


def test_forbidding_one_of_several_ways_back_is_warned_of(tmp_path: Path) -> None:
    """Each way counts: which one is needed shows only when it is needed."""
    policy = policy_of(tmp_path, '[actions]\nforbid = ["delete_file"]\n')
    assert policy.warnings(ACTIONS) == ("put_file is allowed, but delete_file, which takes it back, is forbidden",)


async def test_a_change_is_told_even_if_the_agent_was_down(tmp_path: Path) -> None:
    """The server learns of each change of the policy once, whether the agent ran or not."""
    machine = Machine(tmp_path, scripted(Script()))
    async with machine.agent() as agent:
        assert await agent.notices() == []
    machine.policy_file.write_text('[actions]\nforbid = ["act"]\n')
    async with machine.agent() as agent:
        (notice,) = await agent.notices("policy-changed")
        assert (notice.detail["before"], len(notice.detail["digest"])) == ("", 64)
        machine.policy_file.write_text("[")
        await agent.executor.policy.look()
        await agent.executor.policy.look()
        *_, last = await agent.notices("policy-changed")
        assert "no TOML" in last.detail["broken"]
    async with machine.agent() as agent:
        assert len(await agent.notices("policy-changed")) == 2


class Nested(Params):
    """Paths at every depth."""

    one: EndpointPath
    """A path."""
    many: tuple[EndpointPath, ...]
    """Paths."""
    named: dict[str, tuple[EndpointPath | None, ...]]
    """More of them."""
    text: str = "/no/path"
    """Text that only looks like one."""


def test_paths_are_found_at_every_depth() -> None:
    """Every path in parameters is checked, however deep; text is none."""
    params = Nested.model_validate_json('{"one": "/1", "many": ["/2", "/3"], "named": {"x": ["/4", null]}}')
    assert list(paths_of(params)) == ["/1", "/2", "/3", "/4"]


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_parse_or_are_invalid(data: bytes) -> None:
    """Whatever the file holds, it is limits or Invalid, never another error."""
    with suppress(Invalid):
        parse(data)


def test_sections_about_the_vault_and_the_machines_own(tmp_path: Path) -> None:
    """Where the vault is, what of the machine's own may be taken, and where files may be put."""
    text = (
        '[paths]\nforbid = ["/root"]\nwrite = ["/opt"]\n'
        '[critical]\nallow = ["/usr/bin/dash"]\n'
        '[vault]\nfolder = "/srv/vault"\n'
    )
    policy = policy_of(tmp_path, text)
    assert policy.may_be_taken() == ("/usr/bin/dash",)
    assert policy.vault_folder(tmp_path) == Path("/srv/vault")
    policy.path_rules().check_write(EndpointPath("/opt/x"))
    with pytest.raises(ForbiddenHere):
        policy.path_rules().check(EndpointPath("/root/x"))
    with pytest.raises(ForbiddenHere):
        policy.path_rules().check_write(EndpointPath("/usr/x"))


def test_without_those_sections(tmp_path: Path) -> None:
    """The vault is where the agent puts it, nothing critical may be taken, and files may be put anywhere."""
    policy = LocalPolicy(tmp_path / "agent.toml")
    assert (policy.may_be_taken(), policy.vault_folder(tmp_path / "v")) == ((), tmp_path / "v")
    policy.path_rules().check_write(EndpointPath("/usr/x"))


def test_a_broken_file_forbids_every_path(tmp_path: Path) -> None:
    """A task that runs while the file is broken may touch no file; the vault stays where it was put by default."""
    policy = policy_of(tmp_path, "[paths\n")
    with pytest.raises(ForbiddenHere):
        policy.path_rules().check(EndpointPath("/tmp/x"))
    assert (policy.may_be_taken(), policy.vault_folder(tmp_path)) == ((), tmp_path)


def test_the_section_about_programs(tmp_path: Path) -> None:
    """Which folders programs may be run from, and whether scripts and interpreters may."""
    rules = policy_of(
        tmp_path, '[programs]\nallow = ["/opt/incident", "/usr/bin"]\ninterpreters = false\n'
    ).path_rules()
    rules.check_program(EndpointPath("/opt/incident/collect"))
    for one in ("/srv/collect", "/usr/bin/dash"):
        with pytest.raises(ForbiddenHere):
            rules.check_program(EndpointPath(one))
    with pytest.raises(ForbiddenHere):
        rules.check_interpreter(EndpointPath("/opt/incident/x.sh"), EndpointPath("/usr/bin/dash"))


def test_without_the_section_every_program_may_be_run(tmp_path: Path) -> None:
    """Shells, too; an empty list allows none."""
    rules = policy_of(tmp_path, "[programs]\n").path_rules()
    rules.check_program(EndpointPath("/usr/bin/dash"))
    rules.check_interpreter(EndpointPath("/opt/x.sh"), EndpointPath("/usr/bin/dash"))
    with pytest.raises(ForbiddenHere):
        policy_of(tmp_path, "[programs]\nallow = []\n").path_rules().check_program(EndpointPath("/bin/true"))


@pytest.mark.parametrize("wrong", ['alow = ["/opt"]', 'allow = "/opt"', 'allow = ["opt"]', 'interpreters = "perhaps"'])
def test_a_limit_of_programs_that_is_misspelt_forbids_everything(tmp_path: Path, wrong: str) -> None:
    """It must not be no limit."""
    policy = policy_of(tmp_path, f"[programs]\n{wrong}\n")
    assert policy.broken
    with pytest.raises(ForbiddenHere):
        policy.path_rules().check(EndpointPath("/opt/incident/collect"))
