"""Collectors of items: one for each document that is no file, found by its name."""

from importlib import import_module

import pytest

from stanch.agent.host.items import MAKERS, Parts, collectors
from stanch.core.ioc.terms import DOCUMENTS


def test_every_document_but_files_has_a_collector():
    """What indicators may ask for on Linux can be collected; files are the worker's."""
    assert set(collectors(Parts())) == set(DOCUMENTS) - {"FileItem"}


@pytest.mark.parametrize("document", MAKERS)
def test_a_collector_is_where_it_should_be(document):
    """A module beside this one offers it, and it takes the parts of the host."""
    module, _, name = MAKERS[document].partition(":")
    assert callable(getattr(import_module(f"stanch.agent.host.{module}"), name)(Parts()))
