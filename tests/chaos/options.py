"""The command line of a campaign."""

from dataclasses import dataclass
from pathlib import Path

from tests.chaos.driver import make_parser
from tests.chaos.plants import MISTAKES

TROUBLES = ("stop", "misbehave", "cut", "disk", "lock", "second", "clock", "told", "people")
"""What may happen to a coordinator before it is killed."""

FAULTS = ("kill", "edges", "io", *TROUBLES)
RARE = ("late",)
"""Only if it is named: it breaks what distllm stands on."""

EXAMPLES = """
examples:
  python -m tests.chaos                                        a bit of everything, in about five minutes
  python -m tests.chaos --kills 0 --edges 100                  killed at the edges of commits
  python -m tests.chaos --kills 500 --edges 0 --faults kill    the long run: half an hour
  python -m tests.chaos --poison 3 --faults kill --kills 5     planted documents that nobody survives
  python -m tests.chaos --plant fence                          must fail: a safeguard is taken out

what the faults do:
  kill       SIGKILL at a random moment                edges      SIGKILL just before, in or after a commit
  io         a sync of the disk fails (strace)         stop       SIGSTOP for a while, SIGCONT
  misbehave  servers fail in all their ways            cut        a server's connections are reset
  disk       the disk is full for a while              lock       another program holds the write lock
  second     a second coordinator follows, takes over  clock      the clock is a day wrong for a while
  told       a COMMIT that is told to have failed      people     status, pause, cancel, retry, db check, query
  late       a frozen coordinator whose lock was taken from it wakes up (only if it is named)

With misbehave, a prompt fails only after --max-retries (50 here), or if every server of the fleet cuts it.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What a campaign is to be."""

    seed: int
    kills: int
    edges: int
    others: int
    prompts: int
    in_flight: int
    answer_seconds: float
    apart: float
    faults: tuple[str, ...]
    poison: int
    plant: str | None
    database_rounds: int
    papers: int
    questions: int
    max_retries: int
    folder: Path | None
    keep: bool

    @property
    def between(self) -> int:
        """How many prompts are answered between two kills, about."""
        return max(4, round(self.in_flight * self.apart))


def parse(arguments: list[str] | None = None) -> Options:
    """Read the command line."""
    parser = make_parser(
        "chaos", "Break distllm again and again, and see that no answer is lost and nothing is done twice.", EXAMPLES
    )
    add = parser.add_argument
    add("--kills", type=int, help="SIGKILLs at random moments (20)")
    add("--edges", type=int, help="SIGKILLs at the edges of commits (24, none if `edges` is not among the faults)")
    add("--others", type=int, help="rounds with each of the other faults (2)")
    add("--prompts", type=int, help="at least so many; more are submitted as work runs low")
    add("--in-flight", type=int, default=50, help="seats of the whole fleet (50)")
    add("--answer-seconds", type=float, default=0.4, help="mean time of an answer, exponential (0.4)")
    add("--apart", type=float, default=5.0, help="mean answer times between two kills, exponential (5)")
    add("--faults", help=f"some of {','.join(FAULTS + RARE)} (all but {','.join(RARE)})")
    add("--poison", type=int, default=0, help="documents that kill whoever sends them (0)")
    add("--plant", choices=sorted(MISTAKES), help="take a safeguard out of a copy of distllm: the run must fail")
    add("--database-rounds", type=int, default=100, help="rounds before the next database is begun (100)")
    add("--papers", type=int, help="papers a job (as the work needs)")
    add("--questions", type=int, default=10, help="questions a job (10)")
    add("--max-retries", type=int, default=50, help="of the victims' configuration (50)")
    given = parser.parse_args(arguments)
    faults = MISTAKES[given.plant].faults if given.plant and given.faults is None else FAULTS
    if given.faults is not None:
        faults = tuple(given.faults.split(","))
        unknown = [fault for fault in faults if fault not in FAULTS + RARE]
        if unknown:
            parser.error(f"no such fault: {', '.join(unknown)}; there are {', '.join(FAULTS + RARE)}")
    kills = given.kills if given.kills is not None else 20 if "kill" in faults else 0
    edges = given.edges if given.edges is not None else 24 if "edges" in faults else 0
    if min(kills, edges, given.poison) < 0 or min(given.in_flight, given.apart, given.answer_seconds) <= 0:
        parser.error("numbers must not be negative, and --in-flight, --apart and --answer-seconds must be more than 0")
    others = 2 if given.others is None else given.others
    if not kills + edges + others * len(set(faults) - {"kill", "edges"}):
        parser.error("there is nothing to do: raise --kills, --edges or --others")
    between = max(4, round(given.in_flight * given.apart))
    papers = given.papers or min(500, max(10, between * 8 // given.questions))
    return Options(
        seed=given.seed,
        kills=kills,
        edges=edges,
        others=others,
        prompts=given.prompts or 0,
        in_flight=given.in_flight,
        answer_seconds=given.answer_seconds,
        apart=given.apart,
        faults=faults,
        poison=given.poison,
        plant=given.plant,
        database_rounds=given.database_rounds,
        papers=papers,
        questions=given.questions,
        max_retries=given.max_retries,
        folder=given.folder,
        keep=given.keep,
    )
