"""The local policy under watch: who looks finds out, and tells the server, that it was changed."""

import asyncio

from stanch.agent.journal import Journal
from stanch.agent.local_policy import LocalPolicy, paths_of
from stanch.agent.spool import Spool
from stanch.core.action import AnyAction, Params, Registry

ENTRY = "policy_digest"


class PolicyWatch:
    """The local policy, and what it was when somebody looked last, even before a restart."""

    def __init__(self, policy: LocalPolicy, *, registry: Registry, journal: Journal, spool: Spool) -> None:
        self._policy = policy
        self._registry = registry
        self._journal = journal
        self._spool = spool

    async def look(self) -> None:
        """Put a notice `policy-changed` into the spool if the policy is another one than last time."""
        self._policy.refresh()
        before, now = self._journal.get(ENTRY), self._policy.digest
        if before == now:
            return
        self._journal.stage(ENTRY, now)
        if before is not None:
            warnings = self._policy.warnings(self._registry)
            detail = {"before": before, "digest": now, "broken": self._policy.broken, "warnings": warnings}
            try:
                await self._spool.put(self._spool.notice("policy-changed", detail))
            except BaseException:
                # Not told, so not to be remembered as told.
                self._journal.stage(ENTRY, before)
                raise

    def check(self, action: AnyAction, params: Params) -> None:
        """ForbiddenHere if the owner of the machine forbids it by the names it was given."""
        self._policy.check(action, params)

    async def check_links(self, params: Params) -> None:
        """ForbiddenHere if a path leads to a forbidden one; may take as long as the file system does."""
        if any(paths_of(params)):
            await asyncio.to_thread(self._policy.check_links, params)
