"""The program of the worker: one request in, one answer out, and the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.core.rest_evidence import ElfPreview, HexPreview, StringsPreview, TextPreview

MODELS = {"text": TextPreview, "hex": HexPreview, "strings": StringsPreview, "elf": ElfPreview}


def ended(data: bytes) -> subprocess.CompletedProcess[bytes]:
    """What became of a worker with this input."""
    line = [sys.executable, "-I", "-m", "stanch.worker"]
    return subprocess.run(line, input=data, env={}, cwd="/", capture_output=True, check=False, timeout=30)


def asked(kind: str, content: bytes, **header: object) -> dict:
    """The answer to a request."""
    line = json.dumps({"kind": kind, "offset": 0, "more": False, "first": content[:4].hex(), **header}).encode()
    process = ended(line + b"\n" + content)
    assert (process.returncode, process.stderr) == (0, b"")
    return json.loads(process.stdout)


@pytest.mark.parametrize("kind", MODELS)
def test_each_kind_is_rendered_in_confinement(kind: str) -> None:
    """The same bytes in every way, by a process that says how it was confined."""
    answer = asked(kind, b"\x7fELF\x02\x01\x01 some words in here \xff\xfe" * 50)
    assert MODELS[kind].model_validate(answer["shown"])
    assert {"landlock", "seccomp", "limits"} <= set(answer["confined"])


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(sorted(MODELS)), st.binary(max_size=2000))
def test_whatever_the_bytes_are_there_is_an_answer(kind: str, content: bytes) -> None:
    """Nothing that a renderer needs is still to be loaded when it is too late."""
    magic = b"\x7fELF\x02\x01\x01" if kind == "elf" else b""
    answer = asked(kind, magic + content, offset=0)
    assert MODELS[kind].model_validate(answer["shown"])


def test_a_real_program_is_rendered_when_nothing_can_be_loaded_any_more() -> None:
    """The parser meets everything that a program has, behind closed doors."""
    answer = asked("elf", Path(sys.executable).read_bytes()[: 16 * 2**20])
    found = ElfPreview.model_validate(answer["shown"])
    assert found.sections
    assert found.libraries


@pytest.mark.parametrize("kind", ["", "exec", "../text"])
def test_another_kind_is_an_error(kind: str) -> None:
    """It answers that it cannot, and is not killed."""
    assert "no such kind" in asked(kind, b"x")["error"]


def test_too_much_is_an_error() -> None:
    """Input beyond the bound is not kept in memory."""
    assert "too many bytes" in asked("hex", bytes(17 * 2**20))["error"]


@pytest.mark.parametrize("data", [b"", b"{}", b"x" * 40_000, b"no json\n", b"{}\n"])
def test_what_is_no_request_ends_it(data: bytes) -> None:
    """With a failure, and without an answer."""
    process = ended(data)
    assert process.returncode != 0
    assert process.stdout == b""


@pytest.mark.slow
def test_a_renderer_that_does_not_end_is_ended() -> None:
    """After two seconds of processor time it answers that it took too long, whatever the machine does besides."""
    program = """
from stanch.worker import __main__ as worker
def endless(_data):
    while True: pass
worker.shown.hexadecimal = endless
worker.main()
"""
    line = [sys.executable, "-I", "-c", program]
    header = b'{"kind": "hex", "offset": 0, "more": false, "first": ""}\n'
    process = subprocess.run(line, input=header, env={}, cwd="/", capture_output=True, check=False, timeout=60)
    assert json.loads(process.stdout)["error"] == "it took too long"
