"""The frames of the link: what an old or a new peer may say, what nobody may say, and bounds for everything."""

import contextlib
import json
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.errors import ErrorBody, Invalid, StanchError, TooLarge
from stanch.core.frames import (
    MAX_FRAME_BYTES,
    PART_BYTES,
    Ack,
    Answer,
    Ask,
    Complaint,
    Deliver,
    FromAgent,
    FromServer,
    Heartbeat,
    Hello,
    Inventory,
    Notice,
    PartInfo,
    ProgressFrame,
    Report,
    Welcome,
    read_agent_frame,
    read_server_frame,
)
from stanch.core.task import State

INVENTORY = Inventory(hostname="web-01")
AGENT_FRAMES = (
    Hello(nonce="n", agent_version="0.1", inventory=INVENTORY, actions={"isolate": 1}),
    Heartbeat(),
    Report(seq=1, task="t", state=State.DONE, result={"changed": True}, at=1.5),
    Notice(seq=2, kind="effect-lifted", detail={"why": "deadline"}, at=2),
    ProgressFrame(task="t", done=5, total=10, unit="bytes", text="half"),
    Ask(nonce="n"),
    Complaint(error=ErrorBody(code="invalid", message="No")),
)
SERVER_FRAMES = (
    Welcome(protocol=1),
    Deliver(envelope="a.b.c"),
    Ack(seqs=(1, 2)),
    Answer(nonce="n"),
    Complaint(error=ErrorBody(code="invalid", message="No")),
)
SIDES = [(read_agent_frame, frame) for frame in AGENT_FRAMES] + [(read_server_frame, frame) for frame in SERVER_FRAMES]
both = pytest.mark.parametrize(("read", "frame"), SIDES, ids=lambda one: getattr(one, "type", ""))
TYPES = {frame.type for frame in (*AGENT_FRAMES, *SERVER_FRAMES)}
readers = pytest.mark.parametrize("read", [read_agent_frame, read_server_frame])


def types_of(union: Any) -> set[type]:
    """The members of a tagged union."""
    return set(typing.get_args(typing.get_args(union)[0]))


def test_every_frame_is_tried() -> None:
    """The lists above leave out no frame."""
    assert {type(frame) for frame in AGENT_FRAMES} == types_of(FromAgent)
    assert {type(frame) for frame in SERVER_FRAMES} == types_of(FromServer)


@both
def test_frames_cross_the_link(read: Any, frame: Any) -> None:
    """A frame that went through JSON is the same, with or without its defaults."""
    assert read(frame.model_dump_json()) == frame
    assert read(frame.model_dump_json(exclude_none=True).encode()) == frame


@both
def test_unknown_fields_are_ignored(read: Any, frame: Any) -> None:
    """A newer peer may send fields that we do not know."""
    more = {**frame.model_dump(mode="json"), "from_the_future": {"deep": [1]}}
    assert read(json.dumps(more)) == frame


@readers
@pytest.mark.parametrize("data", ['{"type": "teleport"}', '{"type": 5}', '{"type": ["hello"]}', "{}", "[]", "null", ""])
def test_unknown_types_are_invalid(read: Any, data: str) -> None:
    """A frame of a type that we do not know is answered with an error, not obeyed."""
    with pytest.raises(Invalid):
        read(data)


def test_the_sides_do_not_mix() -> None:
    """An agent cannot speak as a server, and a server not as an agent."""
    with pytest.raises(Invalid):
        read_agent_frame(SERVER_FRAMES[1].model_dump_json())
    with pytest.raises(Invalid):
        read_server_frame(AGENT_FRAMES[2].model_dump_json())


@readers
def test_oversized_frames_are_too_large(read: Any) -> None:
    """The bound is checked before anything is parsed."""
    with pytest.raises(TooLarge):
        read(b" " * (MAX_FRAME_BYTES + 1))
    with pytest.raises(TooLarge):
        read(" " * (MAX_FRAME_BYTES + 1))


@readers
@given(data=st.binary() | st.text())
def test_random_bytes_raise_only_our_errors(read: Any, data: bytes | str) -> None:
    """Whatever arrives, the answer is one of our errors."""
    with pytest.raises(StanchError):
        read(data)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@both
@given(data=st.data())
def test_changed_frames_raise_only_our_errors(read: Any, frame: Any, data: st.DataObject) -> None:
    """A frame with any one field replaced by anything is read, or refused as ours."""
    fields = frame.model_dump(mode="json")
    name = data.draw(st.sampled_from(sorted(fields)))
    with contextlib.suppress(StanchError):
        assert read(json.dumps({**fields, name: data.draw(JSON_VALUES)})).type in TYPES


@readers
@pytest.mark.parametrize("data", ["[" * 100_000, '{"type":' * 50_000, b"\xff\xfe", "\ud800", '{"type": "\\ud800"}'])
def test_hostile_text_is_invalid(read: Any, data: bytes | str) -> None:
    """Deep nesting and broken Unicode are errors of the peer, not of ours."""
    with pytest.raises(Invalid):
        read(data)


BEYOND = 2**63
TOO_MUCH = {
    "report number": (read_agent_frame, {"type": "report", "seq": BEYOND, "task": "t", "state": "done", "at": 1}),
    "report time": (read_agent_frame, {"type": "report", "seq": 1, "task": "t", "state": "done", "at": 1e300}),
    "notice number": (read_agent_frame, {"type": "notice", "seq": BEYOND, "kind": "k", "at": 1}),
    "notice time": (read_agent_frame, {"type": "notice", "seq": 1, "kind": "k", "at": 1e300}),
    "progress": (read_agent_frame, {"type": "progress", "task": "t", "done": BEYOND}),
    "progress total": (read_agent_frame, {"type": "progress", "task": "t", "done": 1, "total": BEYOND}),
    "ack": (read_server_frame, {"type": "ack", "seqs": [BEYOND]}),
    "ack below": (read_server_frame, {"type": "ack", "seqs": [-1]}),
    "heartbeat": (read_server_frame, {"type": "welcome", "protocol": 1, "heartbeat_seconds": 1e9}),
}


@pytest.mark.parametrize(("read", "frame"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_numbers_fit_where_they_are_kept(read: Any, frame: dict[str, Any]) -> None:
    """A number that no database column and no clock can hold is refused at the door."""
    with pytest.raises(Invalid):
        read(json.dumps(frame))


def test_error_texts_are_bounded() -> None:
    """An endpoint cannot fill the store with one error."""
    body = {"code": "invalid", "message": "m" * 1_000_000}
    with pytest.raises(Invalid):
        read_agent_frame(json.dumps({"type": "complaint", "error": body}))


def test_parts_are_bounded() -> None:
    """A part of evidence is at most one part long."""
    assert PartInfo(n=0, size=PART_BYTES, sha256="0" * 64).size == PART_BYTES
    with pytest.raises(ValueError, match="size"):
        PartInfo(n=0, size=PART_BYTES + 1, sha256="0" * 64)
