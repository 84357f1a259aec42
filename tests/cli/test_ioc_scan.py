"""`stanch ioc scan`: indicators for real, on files that are planted."""

import hashlib

from stanch.cli.ioc_scan import switches_of
from stanch.cli.scan_text import FOUND, INCOMPLETE

MARK = b"stanch-planted-MARK"
IOC = """<?xml version="1.0" encoding="utf-8"?>
<ioc xmlns="http://schemas.mandiant.com/2010/ioc" id="0b7ab8ae-5b5c-4a3c-8f1c-2d1c7f6c0a11">
  <short_description>planted</short_description>
  <definition>
    <Indicator operator="AND" id="0b7ab8ae-5b5c-4a3c-8f1c-2d1c7f6c0a12">
      <IndicatorItem id="0b7ab8ae-5b5c-4a3c-8f1c-2d1c7f6c0a13" condition="contains">
        <Context document="FileItem" search="FileItem/FileName" type="mir"/>
        <Content type="string">bad</Content>
      </IndicatorItem>
      <IndicatorItem id="0b7ab8ae-5b5c-4a3c-8f1c-2d1c7f6c0a14" condition="is">
        <Context document="FileItem" search="FileItem/SizeInBytes" type="mir"/>
        <Content type="int">21</Content>
      </IndicatorItem>
    </Indicator>
  </definition>
</ioc>
"""


def test_a_hash_is_found(run, planted):
    """A list of hashes is enough."""
    digest = hashlib.sha256(b"xx" + MARK).hexdigest()
    (planted / "hashes.txt").write_text(f"# known\n{digest} dropper\n")
    ended = run("ioc", "scan", "--no-gentle", "--path", "look", "hashes.txt", "--json")
    assert ended.code == FOUND
    assert [one["objects"][0]["path"] for one in ended.json["findings"]] == [str(planted / "look" / "bad file")]


def test_an_openioc_file_is_found(run, planted):
    """Terms of one AND hold for one and the same file, and the branch is told."""
    (planted / "a.ioc").write_text(IOC)
    ended = run("ioc", "scan", "--no-gentle", "--path", "look", "a.ioc", "--json")
    assert ended.code == FOUND
    (one,) = ended.json["findings"]
    assert one["objects"][0]["path"] == str(planted / "look" / "bad file")
    assert any("bad" in line["text"] for line in one["why"])


def test_a_document_that_is_switched_off_never_matches(run, planted):
    """--without and --only say what is looked at; the terms that never matched are told."""
    (planted / "a.ioc").write_text(IOC)
    ended = run("ioc", "scan", "--no-gentle", "--path", "look", "a.ioc", "--only", "PortItem", "--json")
    assert ended.json["found"] == 0
    assert "switched off" in ended.out
    assert ended.code == INCOMPLETE  # nothing could have been found: that is no clean bill
    assert not ended.json["complete"]
    assert "could have found anything" in ended.json["tally"]["why_incomplete"]
    assert switches_of(("PortItem",), ("PortItem",))["PortItem"] is False
    assert "PortItem" not in switches_of(("PortItem",), ())
