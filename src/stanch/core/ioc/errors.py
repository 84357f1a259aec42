"""What is wrong with a file of indicators. No part of the tree in `core.errors`: this is raised in the scanner too.

The scanner's worker starts for each scan, and everything that it imports costs every scan; so `core.ioc` needs the
standard library only. Whoever stands between it and people turns these into `core.errors`.
"""


class Unreadable(ValueError):
    """A file of indicators, or a part of it, is not what it should be."""

    def __init__(self, message: str, *, got: str = "", expected: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.got = got[:500]
        self.expected = expected
        self.line = line
        """Where, from 1; 0 if that is not known."""

    def __str__(self) -> str:
        parts = (
            self.message,
            f"at line {self.line}" if self.line else "",
            f"got {self.got}" if self.got else "",
            f"expected {self.expected}" if self.expected else "",
        )
        return ", ".join(filter(None, parts))
