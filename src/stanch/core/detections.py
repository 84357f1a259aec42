"""Detections: what agents and the server notice that somebody should look at, with its weight, as data.

An agent tells what happens to it in notices; those of the kinds below are detections. Scans and execution prevention
will add theirs here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How urgent it is to look."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """0, 1, 2: comparable."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class DetectionKind:
    """One kind of detection."""

    title: str
    severity: Severity


DETECTIONS: Mapping[str, DetectionKind] = {
    "isolation-tampered": DetectionKind("Somebody else changed the rules of an isolation or a block", Severity.HIGH),
    "identity-used-twice": DetectionKind("Two agents use one identity", Severity.HIGH),
    "release-code-refused": DetectionKind("A wrong release code was typed at the endpoint", Severity.MEDIUM),
    "release-code-used": DetectionKind(
        "An isolation was lifted at the endpoint with its release code", Severity.MEDIUM
    ),
    "policy-changed": DetectionKind("The local policy of the endpoint was changed", Severity.MEDIUM),
    "envelope-refused": DetectionKind("The endpoint was sent something that it must not obey", Severity.MEDIUM),
    "journal-damaged": DetectionKind("The journal of the agent was damaged and started anew", Severity.MEDIUM),
    "local-order": DetectionKind("An order was given at the endpoint itself", Severity.LOW),
    "clock-changed": DetectionKind("The agent's clock was set back", Severity.LOW),
    "effect-lift-failed": DetectionKind("Something could not be lifted at its deadline", Severity.MEDIUM),
    "vault-full": DetectionKind("Something could not be quarantined: the vault is full", Severity.HIGH),
    "vault-damaged": DetectionKind("Something in the vault is damaged", Severity.MEDIUM),
    "ioc-found": DetectionKind("An indicator of compromise matches on the endpoint", Severity.HIGH),
    "yara-found": DetectionKind("A YARA rule matches on the endpoint", Severity.HIGH),
    "malware-found": DetectionKind("Malware was found on the endpoint", Severity.HIGH),
    "content-not-loaded": DetectionKind("New rules or indicators do not load on the endpoint", Severity.MEDIUM),
    "certificate-renewal-failed": DetectionKind("The certificate of the agent grows old", Severity.LOW),
}
"""Kind of notice to what it means."""
