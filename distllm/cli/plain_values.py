"""Values of options that need no checking, so that most commands do not import what typer checks them with.

Typer hands every value to pydantic, whose import takes longer than most commands do.
"""

from enum import Enum
from pathlib import Path
from typing import Any

MOST_DIGITS = 18
_NOT_PLAIN = object()


class Coercion:
    """Takes a value as it is where it is plainly right, and leaves all others, and all complaints, to typer."""

    def __init__(self, parameter: Any) -> None:
        self._typers = parameter.get_runtime_param

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value as the command wants it; typer's error where it is not to be had."""
        plain = _plain(value, param)
        return self._typers().coerce(value, param=param, ctx=ctx) if plain is _NOT_PLAIN else plain


def take_plain_values(command: Any) -> None:
    """Have the parameters of a command, and of all commands under it, take what is plainly right as it is."""
    theirs = command.get_params

    def get_params(ctx: Any) -> list[Any]:
        parameters: list[Any] = theirs(ctx)
        for parameter in parameters:
            # Of later versions of typer, which may do without pydantic, nothing is expected.
            if hasattr(parameter, "get_runtime_param") and "get_runtime_param" not in vars(parameter):
                coercion = Coercion(parameter)
                parameter.get_runtime_param = lambda coercion=coercion: coercion
        return parameters

    command.get_params = get_params
    for below in getattr(command, "commands", {}).values():
        take_plain_values(below)


def _plain(value: Any, parameter: Any) -> Any:
    if value is None:
        return () if parameter.multiple or parameter.nargs == -1 else None
    wanted = parameter.type_descriptor.annotation
    info = parameter.type_descriptor.parameter_info
    if isinstance(wanted, type) and issubclass(wanted, Enum | Path) and isinstance(value, wanted):
        return value
    if wanted is str and isinstance(value, str):
        return value
    if wanted is Path and isinstance(value, str) and value and not (info.exists or info.readable or info.resolve_path):
        return Path(value)
    if wanted is int and isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= MOST_DIGITS:
        number = int(value)
        return number if (info.min or 0) <= number and (info.max is None or number <= info.max) else _NOT_PLAIN
    return _NOT_PLAIN
