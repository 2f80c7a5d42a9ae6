"""One command line, run to its exit code. The commands are declared where they are imported here, in help's order."""

import os
import sys
from collections.abc import Sequence

import typer
from typer.exceptions import TyperException

from distllm.cli.commands import answers, db, jobs, presets, serve, workers
from distllm.cli.root import StoppedError, app
from distllm.domain.errors import DistllmError
from distllm.domain.text import shown

__all__ = ["answers", "db", "jobs", "presets", "run", "serve", "workers"]


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code."""
    try:
        code = app(list(arguments) or ["--help"], prog_name="distllm", standalone_mode=False)
    except DistllmError as error:
        return _complain(str(error), error.exit_code)
    except TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "distllm")
        for option in ("--db", "--server", "--config", "--log-level"):
            if error.format_message().startswith(f"No such option: {option}"):
                return _complain(
                    f"{option} stands before the command: distllm {option} … {command.removeprefix('distllm ')} …", 2
                )
        return _complain(f"{error.format_message().rstrip('.')}; see: {command} --help", error.exit_code)
    except (typer.Abort, KeyboardInterrupt, StoppedError):
        typer.echo("distllm: interrupted; what was stored is kept, and `distllm resume` goes on with it", err=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return _complain(f"{error.filename}: {reason}" if error.filename else reason, 1)
    except UnicodeEncodeError as error:
        what = error.object.encode("utf-8", "replace").decode()
        return _complain(f"{what!r} is not UTF-8: write it in UTF-8, or let your terminal do so", 2)
    except Exception as error:
        return _complain(f"{type(error).__name__}: {error}", 1)
    return code if isinstance(code, int) else 0


def _complain(text: str, code: int) -> int:
    import logging

    logging.getLogger("distllm").debug("", exc_info=True)
    # A file's name may be anything, and would be shown by a terminal as what it is.
    typer.echo(f"distllm: {' '.join(shown(text).splitlines())}", err=True)
    return code
