"""What crictl writes: read as it is, or refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import container_crictl
from stanch.agent.host.container_crictl import ask_crictl, told_by
from stanch.agent.host.container_sockets import Told
from stanch.agent.host.run import Finished
from stanch.core.errors import ActionFailed, Unsupported

ID = "ab" * 32
ROW = {
    "id": ID,
    "podSandboxId": "cd" * 32,
    "metadata": {"name": "web", "attempt": 0},
    "image": {"image": "registry.example/shop:3"},
    "state": "CONTAINER_RUNNING",
    "createdAt": "1764000000000000000",
    "labels": {"io.kubernetes.pod.name": "shop-1", "io.kubernetes.pod.uid": "p-1"},
}


def told(*rows):
    return told_by(json.dumps({"containers": rows}).encode())


def test_containers_are_told_with_their_pods():
    """The pod's name goes before the container's, which repeats in every pod."""
    assert told(ROW) == [Told(ID, "shop-1/web", "registry.example/shop:3", "running", "", "p-1")]


@pytest.mark.parametrize(("state", "meaning"), [
    ("CONTAINER_EXITED", "exited"),
    ("CONTAINER_CREATED", "created"),
    ("CONTAINER_SOMETHING", "unknown"),
])  # fmt: skip
def test_states_are_told_in_our_words(state, meaning):
    """One that we do not know is unknown."""
    assert told(ROW | {"state": state, "labels": None})[0].state == meaning


@pytest.mark.parametrize("row", [None, {}, [], ROW | {"id": "../x"}, ROW | {"id": 5}, ROW | {"id": ""}])
def test_what_has_no_id_is_left_out(row):
    """The others are told."""
    assert [one.id for one in told(row, ROW)] == [ID]


@pytest.mark.parametrize("output", [b"", b"FATA[0000]", b"[]", b'{"containers": 5}', b"[" * 100_000, b"\xff"])
def test_nonsense_is_a_failure(output):
    """Whatever is no list of containers."""
    with pytest.raises(ActionFailed, match="something else"):
        told_by(output)


@given(
    st.dictionaries(
        st.sampled_from(list(ROW)), st.none() | st.text(max_size=400) | st.dictionaries(st.text(), st.text())
    )
)
def test_any_row_is_read_or_left_out(fields):
    """Fields of the wrong type are empty, and long ones are cut."""
    for one in told(ROW | fields):
        assert max(map(len, (one.image, one.state, one.pod))) <= 200
        assert len(one.name) <= 401


@pytest.mark.parametrize("code", [0, 1])
async def test_it_is_asked_once_and_for_all(monkeypatch, code):
    """Its exit status is believed, and what it complains of is told."""
    asked = []

    async def run(argv, **_bounds):
        asked.append(argv)
        return Finished(code, b"{}", b"cannot connect")

    monkeypatch.setattr(container_crictl, "run", run)
    if code:
        with pytest.raises(ActionFailed, match="cannot connect"):
            await ask_crictl()
    else:
        assert await ask_crictl() == b"{}"
    assert asked == [("crictl", "ps", "--all", "--output", "json")]


async def test_without_it_that_is_said(monkeypatch):
    """A machine without Kubernetes has none."""
    monkeypatch.setattr("stanch.agent.host.run.PATH", "/nonexistent")
    with pytest.raises(Unsupported, match="crictl is not installed"):
        await ask_crictl()
