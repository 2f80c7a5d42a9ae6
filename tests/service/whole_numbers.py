"""A hook of Schemathesis: whole numbers are written as such.

JSON Schema takes 7.0 for one; the API wants 7, since it takes nothing for a number that merely looks like one.
"""

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(_: Any, body: Any) -> Any:
    """The same body."""
    return written(body)


def written(value: Any) -> Any:
    """A value of JSON, and of what is sent beside it in a form."""
    match value:
        case dict():
            return {key: written(each) for key, each in value.items()}
        case list():
            return [written(each) for each in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value
