"""Where agents reach the server, on the command line."""

import pytest

NEW = "https://new.test:8444"


def test_addresses_are_shown(run, signed_in):
    """Those of the configuration, those that were announced, and what is behind them."""
    ended = run("addresses")
    assert "https://a.test:8444" in ended.out
    assert "10.0.0.1:8444" in ended.out
    assert run("addresses", "--json").json["announced"] == []
    assert [what for what, _ in signed_in.requests] == ["GET /server/addresses"] * 2


def test_addresses_are_announced(run, signed_in):
    """All that are named, in place of the earlier ones; or none."""
    assert NEW in run("addresses", "set", NEW, "https://10.0.0.9:8444").out
    assert run("addresses", "set", "--none", "--json").json["announced"] == []
    assert signed_in.asked("PUT /server/addresses") == [{"urls": [NEW, "https://10.0.0.9:8444"]}, {"urls": []}]


@pytest.mark.parametrize("line", [(), (NEW, "--none"), ("x" * 400,), (NEW,) * 17])
def test_what_is_unclear_is_not_announced(run, signed_in, line):
    """Nothing is taken back by accident; bounds are checked here."""
    assert run("addresses", "set", *line).code == 2
    assert not signed_in.requests
