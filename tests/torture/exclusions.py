"""What the sequences leave open, in the words of an order and in the observer's."""

from dataclasses import dataclass

from tests.torture import lab as places


@dataclass(frozen=True, slots=True)
class Exclusions:
    """What stays open: as it is ordered, as the observer is told it, and what must get out because of it."""

    words: tuple[str, ...] = ()
    told: tuple[dict[str, object], ...] = ()
    streams: tuple[str, ...] = ()


NO_EXCLUSIONS = Exclusions()
_FOUR, _SIX = places.PARTNER
_NEAR_FOUR, _NEAR_SIX = places.GATEWAY
_HOST_FOUR, _HOST_SIX = places.HOST
SIMPLE = Exclusions(
    words=(_FOUR, f"{_SIX}/128"),
    told=({"network": _FOUR}, {"network": _SIX}),
    streams=(f"{_HOST_FOUR} udp {_FOUR}", f"{_HOST_SIX} tcp {_SIX}", f"{_HOST_FOUR} icmp {_FOUR}"),
)
NARROW = (
    Exclusions(
        words=(f"out tcp {_FOUR} remote 4000", f"out udp {_SIX} remote 3990-4010"),
        told=(
            {"network": _FOUR, "transport": "tcp", "direction": "out", "remote": [4000, 4000]},
            {"network": _SIX, "transport": "udp", "direction": "out", "remote": [3990, 4010]},
        ),
        streams=(f"{_HOST_FOUR} tcp {_FOUR}", f"{_HOST_SIX} udp {_SIX}"),
    ),
    Exclusions(
        words=(f"in tcp {_NEAR_FOUR} local 7000", f"in udp {_NEAR_SIX} local 7000", f"out icmp {_FOUR}"),
        told=(
            {"network": _NEAR_FOUR, "transport": "tcp", "direction": "in", "local": [7000, 7000]},
            {"network": _NEAR_SIX, "transport": "udp", "direction": "in", "local": [7000, 7000]},
            {"network": _FOUR, "transport": "icmp", "direction": "out"},
        ),
        streams=(f"{_HOST_FOUR} tcp {_NEAR_FOUR}", f"{_HOST_SIX} udp {_NEAR_SIX}", f"{_HOST_FOUR} icmp {_FOUR}"),
    ),
)
