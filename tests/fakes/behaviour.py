"""How a fake server treats one request: well by default, and in every bad way that real ones know."""

from dataclasses import dataclass, field
from enum import Enum, auto


class Ending(Enum):
    """How a stream ends."""

    DONE = auto()
    """Finish reason, usage, `[DONE]`."""
    NO_DONE = auto()
    """Finish reason and usage, then the end of the stream."""
    NO_REASON = auto()
    """`[DONE]` without a finish reason."""
    EOF = auto()
    """A clean end in the middle."""
    ABORT = auto()
    """The connection is reset in the middle."""
    ERROR = auto()
    """An error inside the stream, then its end."""
    HANG = auto()
    """Nothing more, for ever."""
    ENDLESS = auto()
    """Tokens for ever."""


class Cut(Enum):
    """What a server reads of a prompt that its window does not hold, where it does not refuse it."""

    HALF = auto()
    """Half of the window, as Ollama does."""
    TENTH = auto()
    """All but a tenth."""
    MESSAGES = auto()
    """All but the earliest messages after the system's, as many as it takes; but the last in any case."""
    SWALLOWS = auto()
    """Nothing, and the answer is an empty text."""


class Caching(Enum):
    """What a server's count of a prompt says of the part that it had cached."""

    TOLD = auto()
    """That is counted, and told."""
    COUNTED = auto()
    """That is counted."""
    LEFT_OUT = auto()
    """That is not counted."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What happens to one request, in the order of the fields. Times are seconds."""

    headers_after: float = 0.0
    reset: bool = False
    """Reset the connection before a byte is sent."""
    status: int = 200
    body: object = None
    """Sent instead of an answer: a dict as JSON, bytes as they are."""
    content_type: str = "application/json"
    held: bool = False
    """Say nothing before the server is told to `release`."""
    first_token_after: float = 0.0
    pings: int = 0
    """Comments sent in equal shares of the time before the first token."""
    role_first: bool = True
    """Start with a delta that has a role and no text."""
    answer: str | None = None
    """None has the server make one up; each word is a token."""
    thinking: str | None = None
    per_token: float = 0.0
    tokens: int | None = None
    """How many tokens come before the ending; None is all."""
    padding: int = 0
    """Bytes of an additional field on the first token's line."""
    crumbs: int | None = None
    """Send the stream in pieces of so many bytes."""
    line_end: str = "\n"
    ending: Ending = Ending.DONE
    finish_reason: str = "stop"
    error: object = field(default_factory=lambda: {"message": "it failed", "code": 500})
    usage: bool = True
    prompt_share: float = 1.0
    """The share of the prompt that is read, and counted in `usage`."""


def llama_error(status: int, message: str, kind: str) -> Behaviour:
    """An error with the body that llama.cpp's server sends."""
    return Behaviour(status=status, body={"error": {"code": status, "message": message, "type": kind}})


def fails_inside(error: object, after: int = 2) -> Behaviour:
    """HTTP 200, some tokens, and then an error: an object or a string."""
    return Behaviour(tokens=after, ending=Ending.ERROR, error=error)


GOOD = Behaviour()
BUSY = llama_error(503, "Loading model", "unavailable_error")
TOO_MANY = Behaviour(status=429, body={"error": {"message": "Too many requests"}})
POOL_FULL = llama_error(500, "Context size has been exceeded.", "server_error")
TOO_LONG = llama_error(
    400,
    "request (3001 tokens) exceeds the available context size (2048 tokens), try increasing it",
    "exceed_context_size_error",
)
N_KEEP = Behaviour(
    status=400,
    body={
        "error": "The number of tokens to keep from the initial prompt is greater than the context length "
        "(n_keep: 13055>= n_ctx: 4096). Try to load the model with a larger context length"
    },
)
BAD_SCHEMA = llama_error(400, "invalid schema: unknown type 'strang'", "invalid_request_error")
WRONG_KEY = llama_error(401, "Invalid API Key", "authentication_error")
NO_MODEL = Behaviour(status=404, body={"error": {"message": "model 'x' not found", "code": "model_not_found"}})
UNKNOWN_IDENTIFIER = Behaviour(
    status=400,
    body={
        "error": {
            "message": "Invalid model identifier 'x'. Please specify a valid one",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    },
)
PROXY_PAGE = Behaviour(
    status=502,
    body=b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>",
    content_type="text/html",
)
PAGE_200 = Behaviour(body=b"<!doctype html>\n<title>Log in</title>", content_type="text/html")
UNEXPECTED_ENDPOINT = Behaviour(body={"error": "Unexpected endpoint or method. (POST /v1/chat/completions)"})
NOTHING_LOADED = Behaviour(
    status=400, body={"error": "No models loaded. Please load a model in the developer page or use `lms load`."}
)
GUARDRAIL = Behaviour(
    status=400, body={"error": {"message": 'Failed to load model "x". Error: insufficient system resources'}}
)
QUEUE_FULL = Behaviour(status=503, body={"error": "server busy, please try again.  maximum pending requests exceeded"})
LOAD_FAILED = Behaviour(status=500, body={"error": "timed out waiting for llama-server to start: "})
REPEATS = Behaviour(status=500, body={"error": "token repeat limit reached"})
THINKS_NOT = Behaviour(status=400, body={"error": '"x" does not support thinking'})
CRASHED = Behaviour(status=500, body={"error": {"message": "llama runner process has terminated"}})
RESET = Behaviour(reset=True)
HELD = Behaviour(held=True)
HANGS = Behaviour(tokens=0, role_first=False, ending=Ending.HANG)
STALLS = Behaviour(tokens=2, ending=Ending.HANG)
PINGS = Behaviour(first_token_after=0.3, pings=6)
BREAKS_OFF = Behaviour(tokens=2, ending=Ending.EOF)
ABORTS = Behaviour(tokens=2, ending=Ending.ABORT)
EMPTY = Behaviour(answer="")
ONLY_THINKS = Behaviour(answer="", thinking="let me see what the paper says")
DRIPS = Behaviour(per_token=0.05, ending=Ending.ENDLESS)
ENDLESS = Behaviour(ending=Ending.ENDLESS)
LONG_LINE = Behaviour(padding=300_000)
CUT = Behaviour(finish_reason="length")
HALVED = Behaviour(prompt_share=0.5)
A_TENTH_LOST = Behaviour(prompt_share=0.9)
