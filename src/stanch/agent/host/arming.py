"""The set that arms our tables: while it holds its element, what drops drops, and the element has a time-out."""

from datetime import timedelta

from stanch.agent.host.tablespec import Set


def armed(lift_after: timedelta | None) -> Set:
    """While it holds its element, everything that drops drops."""
    return Set(name="armed", kind="mark", options="flags timeout", elements=[arming(lift_after)], times=True)


def arming(lift_after: timedelta | None) -> str:
    """The element that it holds."""
    return f"0x0{timeout(lift_after)}"


def timeout(lift_after: timedelta | None) -> str:
    """How long an element stays, in nft's words; nothing for ever."""
    if lift_after is None:
        return ""
    # Piece by piece: nft takes no number of more than eight digits, ten thousand hours in seconds are that long.
    whole = max(lift_after, timedelta(milliseconds=1))
    minutes, rest = divmod(whole, timedelta(minutes=1))
    hours, minute = divmod(minutes, 60)
    return f" timeout {hours // 24}d{hours % 24}h{minute}m{rest.seconds}s{rest.microseconds // 1000}ms"
