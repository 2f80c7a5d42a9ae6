"""What a campaign looks for."""


class BrokenPromiseError(Exception):
    """A promise is broken: which, and what shows it."""

    def __init__(self, promise: str, shown: str) -> None:
        super().__init__(f"{promise}: {shown}")


def few(found: list[object], most: int = 5) -> str:
    """The first of many, and how many there are."""
    named = ", ".join(map(str, found[:most]))
    return named if len(found) <= most else f"{named} and {len(found) - most} more"
