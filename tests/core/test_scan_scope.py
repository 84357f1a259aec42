"""Tests of stanch.core.scan_scope: where a scan looks, and with what."""

import pytest
from pydantic import ValidationError

from stanch.core.content import ContentKind
from stanch.core.errors import Invalid
from stanch.core.scan_scope import LARGEST, Scope, materials_of, planned
from stanch.core.scanning import Area, Files
from tests.fakes.content import material
from tests.fakes.host import FakeEndpoint


def test_without_words_the_default_area_is_meant() -> None:
    """Each action has its own; bounds are as the scope says."""
    files = Scope().files(Area.SYSTEM)
    assert (files.area, files.max_size, files.network) == (Area.SYSTEM, LARGEST, False)


@pytest.mark.parametrize("wrong", [{"exclude": ["tmp"]}, {"path": ["tmp"]}, {"max_file_size": 0}, {"max_findings": 0}])
def test_wrong_places_and_bounds_are_refused(wrong: dict[str, object]) -> None:
    """Paths are whole ones, and bounds let something through."""
    with pytest.raises(ValidationError):
        Scope.model_validate(wrong)


async def test_content_of_the_wrong_kind_is_refused_by_name() -> None:
    """Published content is checked like a file that comes with the order."""
    endpoint = FakeEndpoint()
    endpoint.content.add("rules", ContentKind.YARA)
    with pytest.raises(Invalid, match=r"rules/rules.yar is nothing that this scan can use") as caught:
        await materials_of(endpoint.host, (), ("rules",), {ContentKind.OPENIOC, ContentKind.STIX})
    assert (caught.value.got, caught.value.expected) == ("YARA rules", "OpenIOC indicators or a STIX bundle")


def test_a_plan_warns_of_the_network() -> None:
    """File systems that many endpoints share are walked by all of them: the plan says so before."""
    plan = planned(Files(network=True, exclude=()), [material("a.yar", b"x")])
    assert [one.what for one in plan.steps] == ["Use yara", "Look at files"]
    assert any("network" in one for one in plan.warnings)
    assert not planned(Files(area=Area.CRITICAL), []).warnings


def test_a_plan_says_when_everything_is_looked_at() -> None:
    """Who has named no place learns from the dry run that it is the whole machine, and how to narrow it."""
    [warning] = planned(Files(area=Area.ALL), []).warnings
    assert "Every local file system" in warning
    assert "--path" in warning
