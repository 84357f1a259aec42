"""One server for the run, a fresh stub behind it for each test."""

import pytest

from stanch.client.api import Client
from tests.client.stub import TOKEN, Listening, Stub, listening


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Listening:
    with listening(tmp_path_factory.mktemp("tls")) as running:
        yield running


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def stub(server) -> Stub:
    return server.serve(Stub())


@pytest.fixture
def naps() -> list[float]:
    return []


@pytest.fixture
def client(stub, naps) -> Client:
    with Client(stub.url, ca=stub.ca, token=TOKEN, sleep=naps.append) as opened:
        yield opened
