"""Ordering actions: what is typed is what is sent; what comes back is shown, and decides the exit code."""

import hashlib
import json

import pytest

from stanch.actions import load
from stanch.cli.ordering import MANY, order_command
from tests.client.stub import an_endpoint
from tests.derive.synthetic import do_everything


def test_what_is_typed_is_what_is_sent(run, signed_in):
    """Parameters, targets and the order's own fields arrive; what was not given does not."""
    ended = run(
        "isolate", "web-01", "ept_2", "--allow", "10.0.0.0/8", "--allow", "2001:db8::1", "--duration", "90m",
        "--reason", "why", "--case", "C-1", "--valid-for", "1h",
    )  # fmt: skip
    assert ended.code == 0
    assert signed_in.asked("POST /actions/isolate/orders") == [
        {
            "endpoints": ["web-01", "ept_2"],
            "reason": "why",
            "case": "C-1",
            "valid_for": "1h",
            "params": {"allow": ["10.0.0.0/8", "2001:db8::1"], "duration": "1h30m"},
        }
    ]
    assert signed_in.headers[-1]["x-stanch-origin"] == "cli"


def test_an_order_says_how_to_follow_it(run, signed_in):
    """Without --wait the order's id and the next command are told."""
    ended = run("isolate", "web-01")
    assert "ord_1" in ended.out
    assert "stanch order show ord_1 --wait" in ended.out


@pytest.mark.parametrize(
    ("line", "params"),
    [
        (("kill-process", "--pid", "7"), {"pid": 7}),
        (("kill-process", "--pid", "7", "--no-tree", "--started", "9"), {"pid": 7, "tree": False, "started": 9}),
        (("kill-process", "--pid", "7", "--tree", "--started", "none"), {"pid": 7, "tree": True, "started": None}),
        (("isolate", "--duration", "none"), {"duration": None}),
        (("list-processes", "--match", "none"), {"match": "none"}),
        (("get-file", "--path", "/a b/\\xff"), {"path": ["/a b/\\xff"]}),
        (("get-file", "--path", "/a", "--max-size", "1.5GiB"), {"path": ["/a"], "max_size": 1_610_612_736}),
    ],
)
def test_parameters_have_their_own_types(run, signed_in, line, params):
    """Numbers, switches, null and text go over the wire as what they are."""
    action, *options = line
    assert run(action, "web-01", *options).code == 0
    assert signed_in.requests[-1][1]["params"] == params


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("isolate",), "No endpoint"),
        (("isolate", "web-01", "--duration", "5x"), "duration"),
        (("isolate", "web-01", "--allow", "10.0.0.0/99"), "allow"),
        (("isolate", "web-01", "--valid-for", "never"), "valid_for"),
        (("isolate", "--label", "nonsense"), "label"),
        (("kill-process", "web-01"), "--pid"),
        (("kill-process", "web-01", "--pid", "0"), "pid"),
        (("get-file", "web-01", "--path", "relative"), "path"),
        (("get-file", "web-01", "--path", "/" + "x" * 5000), "path"),
    ],
)
def test_what_is_wrong_is_never_sent(run, signed_in, line, said):
    """A wrong parameter is found here, with its name, and ends with 2."""
    ended = run(*line)
    assert ended.code == 2
    assert said in ended.err
    assert not signed_in.requests


# --- are you sure? ---------------------------------------------------------------------------------------------------


@pytest.fixture
def fleet(signed_in):
    """More endpoints than are changed without a question, all in production."""
    signed_in.endpoints = [an_endpoint(n, labels=("env=prod",)) for n in range(1, MANY + 2)]
    return signed_in


def ordered(stub) -> bool:
    return bool(stub.asked("POST /actions/isolate/orders"))


@pytest.mark.parametrize("by_label", [False, True])
def test_many_endpoints_need_a_yes(run, fleet, terminal, by_label):
    """On a terminal a change of many endpoints is asked for, also when a label selects them."""
    targets = ["--label", "env=prod"] if by_label else [one.hostname for one in fleet.endpoints]
    terminal("n", "y")
    refused = run("isolate", *targets)
    assert refused.code == 10
    assert "Nothing was ordered" in refused.err
    assert not ordered(fleet)
    assert run("isolate", *targets).code == 0
    assert ordered(fleet)


@pytest.mark.parametrize("extra", [("--yes",), ("--dry-run",)])
def test_no_question_where_none_is_needed(run, fleet, terminal, extra):
    """A yes in advance and a dry run are not asked about."""
    terminal()
    assert run("isolate", "--label", "env=prod", *extra).code == 0


def test_reading_and_few_endpoints_are_not_asked_about(run, fleet, terminal):
    """Read-only actions on many, and changes of few, go ahead."""
    terminal()
    assert run("list-processes", "--label", "env=prod").code == 0
    assert run("isolate", "web-01").code == 0


def test_a_script_is_not_asked(run, fleet):
    """Without a terminal nobody can answer."""
    assert run("isolate", "--label", "env=prod").code == 0


# --- every kind of option --------------------------------------------------------------------------------------------


def test_a_command_of_every_kind_of_option(run, signed_in, tmp_path, monkeypatch):
    """Choices, structure, sets and secrets of a made-up action arrive; the secret comes from a file."""
    (tmp_path / "key").write_text("s3cret\nmore\n")
    command = order_command(do_everything)
    monkeypatch.setattr("stanch.cli.main.Root.get_command", lambda *_: command)
    signed_in.raw["POST /actions/do_everything/orders"] = (
        201,
        signed_in.order("isolate", {"endpoints": ["web-01"], "params": {}}).model_dump_json().encode(),
    )
    ended = run(
        "do-everything", "web-01", "--pid", "1", "--colour", "blue", "--no-on", "--rules", '{"path": "/a"}',
        "--ports", "443", "--ports", "22", "--key", str(tmp_path / "key"), "--maybe", "true", "--level", "none",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    sent = signed_in.requests[-1][1]["params"]
    assert sorted(sent.pop("ports")) == [22, 443]
    assert sent == {
        "pid": 1,
        "colour": "blue",
        "on": False,
        "rules": [{"path": "/a"}],
        "key": "s3cret",
        "maybe": True,
        "level": None,
    }


def test_destructive_actions_ask_even_for_one(run, signed_in, terminal, monkeypatch):
    """What cannot be repaired is always asked about."""
    monkeypatch.setattr("stanch.cli.main.Root.get_command", lambda *_: order_command(do_everything))
    terminal("n")
    assert run("do-everything", "web-01", "--pid", "1").code == 10
    assert not json.dumps(signed_in.requests).count("do_everything")


def test_an_order_is_addressed_to_a_group(run, signed_in, terminal, monkeypatch):
    """It is sent, and a person is asked when many endpoints belong to it."""
    signed_in.endpoints = [an_endpoint(n).model_copy(update={"groups": ("web",)}) for n in range(1, MANY + 2)]
    assert run("isolate", "--group", "web", "--yes").code == 0
    assert signed_in.asked("POST /actions/isolate/orders")[0]["group"] == "web"
    terminal("n")
    asked: list[str] = []
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda prompt: asked.append(prompt) or "n")
    assert run("isolate", "--group", "web").code == 10
    assert f"on {MANY + 1} endpoints (group web)" in asked[0]


# --- what must be typed ----------------------------------------------------------------------------------------------


def rebooted(stub):
    """The orders to restart machines that were sent."""
    return stub.asked("POST /actions/reboot/orders")


def test_a_person_types_the_name_of_the_endpoint(run, signed_in, terminal):
    """It is shown, typed, and sent; a yes in advance is not enough."""
    terminal("web-01")
    ended = run("reboot", "ept_1", "--yes")
    assert ended.code == 0, ended.err
    assert "web-01" in ended.err
    assert [one["confirm"] for one in rebooted(signed_in)] == ["web-01"]


@pytest.mark.parametrize("typed", ["", "yes", "web-02", "2"])
def test_anything_else_orders_nothing(run, signed_in, terminal, typed):
    """Whoever is not sure does not type it by chance."""
    terminal(typed)
    assert run("reboot", "web-01").code == 10
    assert rebooted(signed_in) == []


@pytest.mark.parametrize("targets", [("--group", "web"), ("--label", "env=prod"), ("web-01", "--label", "env=prod")])
def test_of_several_endpoints_their_number_is_typed(run, signed_in, terminal, targets):
    """Each counts once, and the first ones are shown."""
    signed_in.endpoints = [
        an_endpoint(n, labels=("env=prod",)).model_copy(update={"groups": ("web",)}) for n in range(1, MANY + 3)
    ]
    terminal(str(MANY + 2))
    ended = run("shutdown", *targets)
    assert ended.code == 0, ended.err
    assert "web-01, web-02" in ended.err
    assert "and others" in ended.err
    assert signed_in.asked("POST /actions/shutdown/orders")[0]["confirm"] == str(MANY + 2)


@pytest.mark.parametrize(("action", "answers"), [("shutdown", [str(MANY)]), ("isolate", [])])
def test_an_endpoint_that_was_revoked_is_not_counted(run, fleet, terminal, action, answers):
    """No order goes to it: the server would refuse the number of all, whatever was typed; nor does it make many."""
    fleet.endpoints = [fleet.endpoints[0].model_copy(update={"revoked": True}), *fleet.endpoints[1:]]
    terminal(*answers)
    ended = run(action, "--label", "env=prod")
    assert ended.code == 0, ended.err
    assert "web-01" not in ended.err


def test_a_script_says_it_in_advance(run, signed_in):
    """Without it, nothing is ordered and nobody is asked; what it says is the server's to compare."""
    refused = run("reboot", "web-01", "--yes")
    assert refused.code == 2
    assert "--confirm" in refused.err
    assert rebooted(signed_in) == []
    assert run("reboot", "web-01", "--confirm", "web-01").code == 0
    assert [one["confirm"] for one in rebooted(signed_in)] == ["web-01"]


def test_a_dry_run_needs_no_typing(run, signed_in, terminal):
    """It changes nothing."""
    terminal()
    assert run("reboot", "web-01", "--dry-run").code == 0
    assert "confirm" not in rebooted(signed_in)[0]


def test_only_what_must_be_typed_has_the_option(run, signed_in):
    """By the declaration of the action, and nothing else."""
    for action in load().values():
        flags = {flag for option in order_command(action).params for flag in option.opts}
        assert ("--confirm" in flags) is action.typed


# --- files that are uploaded -----------------------------------------------------------------------------------------

PUT = ("put-file", "web-01", "--content", "tool.sh", "--path", "/opt/tool.sh")


@pytest.fixture
def tool(tmp_path):
    """A file on this side."""
    (tmp_path / "tool.sh").write_bytes(b"#!/bin/sh")
    return hashlib.sha256(b"#!/bin/sh").hexdigest()


def test_a_file_is_uploaded_and_its_order_names_it(run, signed_in, tool):
    """First the bytes, then the order, with the hash that the endpoint compares."""
    ended = run(*PUT, "--mode", "0755")
    assert ended.code == 0, ended.err
    assert [what for what, _ in signed_in.requests[-2:]] == ["POST /uploads", "POST /actions/put_file/orders"]
    assert signed_in.requests[-1][1]["params"] == {
        "content": {"id": "upl_1", "name": "tool.sh", "size": 9, "sha256": tool},
        "path": "/opt/tool.sh",
        "mode": 0o755,
    }


def test_for_a_dry_run_nothing_is_uploaded(run, signed_in, tool):
    """The order describes the file, so that the plan can compare it."""
    assert run(*PUT, "--dry-run").code == 0
    content = signed_in.requests[-1][1]["params"]["content"]
    assert (content["sha256"], content["size"], content["id"]) == (tool, 9, "not-uploaded")
    assert signed_in.uploads == {}


@pytest.mark.parametrize(
    ("options", "code"), [(("--mode", "rwx"), 2), (("--owner", ""), 2), (("--valid-for", "never"), 2)]
)
def test_what_is_wrong_is_told_before_the_file_is_sent(run, signed_in, tool, options, code):
    """Nobody waits for an upload whose order is refused."""
    assert run(*PUT, *options).code == code
    assert (signed_in.uploads, signed_in.requests) == ({}, [])


def test_whoever_says_no_uploads_nothing(run, signed_in, terminal, tool):
    """The question comes first."""
    terminal("n")
    assert run(*PUT).code == 10
    assert signed_in.uploads == {}


def test_a_file_that_is_not_here_is_named(run, signed_in):
    """And nothing is ordered."""
    ended = run(*PUT)
    assert ended.code != 0
    assert "tool.sh" in ended.err
    assert not any("orders" in what for what, _ in signed_in.requests)


def test_its_option_completes_names_of_files():
    """As the option takes a file on this side."""
    command = order_command(load()["put_file"])
    (option,) = [one for one in command.params if "--content" in one.opts]
    (item,) = option.type.shell_complete(command.make_context("x", [], resilient_parsing=True), option, "t")
    assert item.type == "file"
