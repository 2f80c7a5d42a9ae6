"""The command line of a run."""

from dataclasses import dataclass
from pathlib import Path

from tests.chaos.driver import make_parser

EXAMPLES = """
examples:
  python -m tests.cluster                                      20,000 prompts, some minutes
  python -m tests.cluster --prompts 2500 --stops 1 --seed 7    half a minute

what happens, one thing every --seconds-between-faults:
  kill       SIGKILL of a coordinator
  cut off    all connections of a coordinator to PostgreSQL are ended by the server
  freeze     SIGSTOP for longer than a coordinator is waited for, then SIGCONT; the others go on, and are hit too;
             within a transaction if possible, or `sleep`, for so long that others have its workers
  crash      PostgreSQL is stopped as `pg_ctl stop -m immediate` does, and started again a second later (--stops)

A fault leaves one coordinator that nothing has befallen lately, so that somebody is there to take over.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is to be. Times are seconds."""

    seed: int
    prompts: int
    coordinators: int
    between: float
    stops: int
    longest: float
    folder: Path | None
    keep: bool


def parse(arguments: list[str] | None = None) -> Options:
    """Read the command line."""
    parser = make_parser(
        "cluster",
        "Break several coordinators and their PostgreSQL, and see that nothing is lost or done twice.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("--prompts", type=int, default=20_000, help="how many there are to answer (20000)")
    add("--coordinators", type=int, default=3, help="how many there are at a time, 2 at least (3)")
    add("--seconds-between-faults", type=float, default=2.0, help="at least (2)")
    add("--stops", type=int, default=3, help="how often PostgreSQL crashes (3)")
    add("--longest", type=float, help="give up after so many seconds (by the number of prompts)")
    given = parser.parse_args(arguments)
    if given.prompts < 1 or given.coordinators < 2 or given.seconds_between_faults <= 0 or given.stops < 0:
        parser.error("there must be a prompt, two coordinators, and some time between two faults")
    return Options(
        seed=given.seed,
        prompts=given.prompts,
        coordinators=given.coordinators,
        between=given.seconds_between_faults,
        stops=given.stops,
        longest=given.longest or 90 + given.prompts / 20,
        folder=given.folder,
        keep=given.keep,
    )
