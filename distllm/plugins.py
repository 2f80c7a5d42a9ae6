"""What installed packages add to distllm, found by name in a group of entry points.

Nothing is imported until it is chosen: names are read from the packages' metadata alone.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any

from distllm.domain.errors import DistllmError


def installed(group: str) -> list[str]:
    """The names that installed packages offer in `group`, in alphabetical order."""
    return sorted(entry_points(group=group).names)


def load(group: str, name: str) -> Any:
    """What a package offers in `group` as `name`.

    Raises DistllmError, with the package and the cause, if it is not there or cannot be imported.
    """
    found = tuple(entry_points(group=group, name=name))
    if not found:
        raise DistllmError(f"no installed package offers {name!r} in the group {group}: install the one that does")
    if len({entry.value for entry in found}) > 1:
        packages = ", ".join(sorted({entry.dist.name if entry.dist else entry.value for entry in found}))
        raise DistllmError(f"several packages offer {name!r} in the group {group}: {packages}; remove all but one")
    try:
        return found[0].load()
    except Exception as error:
        package = found[0].dist.name if found[0].dist else found[0].value
        raise DistllmError(
            f"{name!r} of the package {package} cannot be imported ({type(error).__name__}: {error}); mend or remove it"
        ) from error


def suggestion(name: str, known: Iterable[str]) -> str:
    """What stands in an error line beside a name that is not known: the names that are, and the nearest."""
    names = sorted({str(each) for each in known})
    listed = f"one of {', '.join(names)}" if names else "the name that an installed package offers, and none does"
    near = get_close_matches(name.lower().replace("-", "_"), names, n=1)
    return f"{listed} (did you mean {near[0]!r}?)" if near else listed
