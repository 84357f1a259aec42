"""The story that `stanch demo` tells: an attack on an endpoint is seen, cut off, ended and examined.

Every step is checked from outside the agent: by listeners and an observer on the endpoint's cable, by the kernel's own
tables, by bytes read past the agent. What the agent reports is never taken as evidence of an effect.
"""

from collections.abc import Iterator

from stanch.core.rest import OrderView
from stanch.demo.act_alone import Alone
from stanch.demo.act_attack import Attack
from stanch.demo.act_files import Files
from stanch.demo.act_isolated import Isolated
from stanch.demo.act_persistence import Persistence
from stanch.demo.act_scans import Scans
from stanch.demo.act_tampered import Tampered
from stanch.demo.report import Report, expect
from stanch.demo.scene import Chapter, Scene
from stanch.demo.stage import Stage

ACTIONS = frozenset(
    {
        "list_processes",
        "isolate",
        "kill_process",
        "get_file",
        "quarantine",
        "quarantine_list",
        "restore",
        "delete_file",
        "run_process",
        "list_autoruns",
        "disable_autorun",
        "enable_autorun",
        "update_content",
        "list_content",
        "yara_scan",
        "ioc_scan",
        "malware_scan",
        "release",
    }
)


class Story:
    """Steps in order; each returns its evidence in words, or raises."""

    def __init__(self, stage: Stage, report: Report) -> None:
        self._report = report
        self._scene = Scene(stage)

    def tell(self) -> bool:
        """Run all steps, or up to one without which the rest means nothing; did every check hold?"""
        chapters = list(self.chapters())
        for number, (name, do) in enumerate(chapters, 1):
            if not self._report.run(name, do):
                left = ", ".join(name for name, _ in chapters[number:])
                self._report.remark(f"  not run: {left}")
                break
        return self._report.all_held

    def chapters(self) -> Iterator[Chapter]:
        """All of them."""
        isolated = Isolated(self._scene)
        yield from Attack(self._scene).chapters()
        yield from isolated.chapters_before_tampering()
        yield from Tampered(self._scene).chapters()
        yield from isolated.chapters_to_clean()
        yield from Files(self._scene).chapters()
        persistence = Persistence(self._scene)
        yield from persistence.chapters_of_the_attack()
        yield from Scans(self._scene).chapters()
        yield from persistence.chapters_to_clean()
        yield from isolated.chapters_of_the_release()
        yield from Alone(self._scene).chapters()
        yield "orders-tell-all", self.orders_tell_all

    def orders_tell_all(self) -> str:
        """Everything that was ordered is on record, and ended well."""
        orders = self._scene.responder.listed(OrderView, "orders", "--limit", "1000")
        names = {order.action for order in orders}
        expect(names == ACTIONS, "The list of orders is not complete", got=sorted(names), expected=sorted(ACTIONS))
        unfinished = [f"{one.action}: {dict(one.states)}" for one in orders if set(one.states) != {"done"}]
        expect(not unfinished, "Not every order is done", got=unfinished)
        origins = {str(one.origin) for one in orders}
        expect(origins == {"cli"}, "Orders came another way", got=origins)
        return f"{len(orders)} orders, all done, all by {orders[0].requested_by} on the command line"
