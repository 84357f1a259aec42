"""The act of the scans: what the attack left is found by rules and indicators, and nothing else is.

The rules are published once and reach the endpoint signed; the indicators come with their order. What is planted is
known, so that everything else that is found is a mistake.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stanch.demo.lab import HOSTNAME
from stanch.demo.program import wait_until
from stanch.demo.report import expect
from stanch.demo.scene import WAIT_SECONDS, Chapter, Scene

PLACE = "/srv/share"
"""A folder of the endpoint with a few files, two of which are the attack's."""

IMPLANT = f"{PLACE}/.cache/update.bin"
DECOY = f"{PLACE}/update.bin"
"""Of the implant's name, with other bytes."""

MARK = b"stanch-demo-implant-7f3a"
CONTENT = "demo-rules"
BUILT_IN = "stanch-base"

RULES = f"""
rule demo_implant : demo
{{
    meta:
        description = "The implant of the demo"
    strings:
        $mark = "{MARK.decode()}"
    condition:
        $mark
}}
"""

ITEM = """<IndicatorItem id="i{n}" condition="{condition}" preserve-case="false" negate="false">
<Context document="{document}" search="{document}/{path}" type="mir"/>
<Content type="{kind}">{content}</Content></IndicatorItem>"""


def indicator(name: str, *terms: tuple[str, str, str, str, str]) -> str:
    """An OpenIOC 1.1 file whose terms must hold together: document, path, condition, type, content."""
    items = "\n".join(
        ITEM.format(n=n, document=document, path=path, condition=condition, kind=kind, content=content)
        for n, (document, path, condition, kind, content) in enumerate(terms)
    )
    return f"""<?xml version="1.0" encoding="utf-8"?>
<OpenIOC xmlns="http://openioc.org/schemas/OpenIOC_1.1" id="{name}" last-modified="2026-11-24T00:00:00Z"
    published-date="2026-11-24T00:00:00Z">
<metadata><short_description>{name}</short_description></metadata>
<criteria><Indicator id="top" operator="AND">{items}</Indicator></criteria><parameters/>
</OpenIOC>"""


class Scans:
    """Publish, scan by rules and by indicators, put what is found away."""

    def __init__(self, scene: Scene) -> None:
        self._stage, self._responder = scene.stage, scene.responder

    def chapters(self) -> Iterator[Chapter]:
        """In order."""
        yield "publish-rules", self.publish
        yield "yara-scan", self.yara_scan
        yield "ioc-scan", self.ioc_scan
        yield "malware-scan", self.malware_scan

    def publish(self) -> str:
        """Rules are imported and published; the endpoint, told to hurry, fetches them, and they load."""
        for path, data in ((IMPLANT, b"\x7fELF" + MARK * 100), (DECOY, b"an update"), (f"{PLACE}/a.txt", b"text")):
            self._path(path).parent.mkdir(parents=True, exist_ok=True)
            self._path(path).write_bytes(data)
        rules = self._stage.lab.folder / "demo.yar"
        rules.write_text(RULES)
        self._responder.stanch("content", "import", CONTENT, str(rules), "--publish")
        installed = wait_until(self._is_updated, within=WAIT_SECONDS)
        expect(installed, "The endpoint does not have the rules", got=self._installed(), expected=CONTENT)
        return f"{CONTENT} version 1 is on the endpoint, beside {BUILT_IN}"

    def yara_scan(self) -> str:
        """The published rule finds the implant, and nothing else in the folder."""
        found = self._scan("yara-scan", "--content", CONTENT, "--path", PLACE)
        told = [(one["rule"], one["objects"][0]["path"]) for one in found]
        expect(told == [("demo_implant", IMPLANT)], "It found something else", got=told, expected=IMPLANT)
        return f"{told[0][0]} in {IMPLANT}, at {found[0]['why'][0]['text'][:60]}"

    def ioc_scan(self) -> str:
        """Terms of an AND hold for one and the same object; a process is found by what it was started with."""
        sha256 = {one: hashlib.sha256(self._path(one).read_bytes()).hexdigest() for one in (IMPLANT, DECOY)}
        name = ("FileItem", "FileName", "is", "string", "update.bin")
        dotted = ("FileItem", "FullPath", "contains", "string", "/.cache/")
        files = {
            "the-implant": indicator("the-implant", name, ("FileItem", "Sha256sum", "is", "sha256", sha256[IMPLANT])),
            "two-files": indicator("two-files", dotted, ("FileItem", "Sha256sum", "is", "sha256", sha256[DECOY])),
            "the-process": indicator(
                "the-process", ("ProcessItem", "arguments", "contains", "string", "stanch.demo.persistence")
            ),
        }
        options = [part for one, text in files.items() for part in ("--file", self._written(f"{one}.ioc", text))]
        found = self._scan("ioc-scan", *options, "--path", PLACE)
        told = {one["rule"] for one in found}
        expect(
            told == {"the-implant", "the-process"}, "Other indicators hold", got=sorted(told), expected=sorted(files)
        )
        paths = {one["objects"][0].get("path") for one in found if one["rule"] == "the-implant"}
        expect(paths == {IMPLANT}, "It holds for another file", got=sorted(map(str, paths)), expected=IMPLANT)
        return "the implant and its process; not the indicator whose terms hold for two different files"

    def malware_scan(self) -> str:
        """What is found goes into the vault; everything else stays."""
        task = self._responder.order("malware-scan", HOSTNAME, "--path", PLACE, "--quarantine")
        removed = [one["path"] for one in (task.result or {}).get("removed", ())]
        left = sorted(one.name for one in self._path(PLACE).rglob("*") if one.is_file())
        expect(removed == [IMPLANT], "Other files were taken", got=removed, expected=IMPLANT)
        expect(left == ["a.txt", "update.bin"], "Other files are left", got=left, expected="the decoy and a.txt")
        return f"{IMPLANT} is in the vault; the decoy of its name is where it was"

    # --- what is seen ------------------------------------------------------------------------------------------------

    def _scan(self, *words: str) -> list[dict[str, Any]]:
        task = self._responder.order(words[0], HOSTNAME, *words[1:])
        result = dict(task.result or {})
        expect(bool(result["complete"]), "The scan did not look everywhere", got=result.get("why_incomplete"))
        return [dict(one) for one in result["findings"]]

    def _is_updated(self) -> bool:
        """By itself it would wait a little: all endpoints of a fleet are told at the same moment."""
        self._responder.order("update-content", HOSTNAME)
        return CONTENT in self._installed()

    def _installed(self) -> list[str]:
        task = self._responder.order("list-content", HOSTNAME)
        return [one["name"] for one in (task.result or {}).get("content", ())]

    def _written(self, name: str, text: str) -> str:
        (self._stage.lab.folder / name).write_text(text)
        return str(self._stage.lab.folder / name)

    def _path(self, path: str) -> Path:
        return self._stage.lab.endpoint.path(path)
