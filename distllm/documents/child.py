"""The child process that works for `DocumentReader`: `python -m distllm.documents.child MEMORY`.

It takes one request a line on its standard input, and answers each with messages on its standard output:
eight bytes of length, big-endian, and as many bytes of JSON. To `{"path": ...}`, first comes `{"sha256": ...}`
as soon as the file's bytes are hashed, then `{"text", "title", "pages", "problem", "sha256"}`, with another
hash where the text comes from several files. To `{"split": text, "budget", "references"}` comes a list of the
parts, as pairs of the characters that they begin with and end before. MEMORY is the most that it may take, in
bytes; it ends with `TOO_MUCH_MEMORY` where a file wants more, and as soon as its standard input is closed,
whatever it is doing: the end of its parent, however it comes, is its own.
"""

import hashlib
import json
import os
import queue
import stat
import sys
import threading
from pathlib import Path

from distllm.documents.extract import Extract, refuse
from distllm.documents.kinds import HEAD, LARGEST, extractor, kind_of, known_suffixes, sniff

TOO_MUCH_MEMORY = 77
"""The exit code of a child whose file took more memory than it may."""

_BLOCK = 1 << 20
_SECONDS_BETWEEN_LOOKS = 0.02
_SHARE_OF_LIMIT = 0.95


def main() -> None:
    """Serve requests until standard input ends."""
    memory = int(sys.argv[1])
    out = _private_output()
    limited = _limit_address_space(memory)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_take_requests, args=(requests,), daemon=True).start()
    threading.Thread(target=_watch_memory, args=(memory, busy, limited), daemon=True).start()
    while True:
        asked = json.loads(requests.get())
        busy.set()
        try:
            if "path" in asked:
                _serve(Path(asked["path"]), out)
            else:
                _split(asked["split"], asked["budget"], out, references=asked["references"])
        except MemoryError:
            os._exit(TOO_MUCH_MEMORY)
        busy.clear()


def _private_output() -> int:
    """Keep the pipe to the parent for messages alone; what a library prints goes nowhere."""
    out = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return out


def _limit_address_space(memory: int) -> bool:
    """Have the system refuse more than `memory` bytes; say whether it does. macOS does not."""
    if sys.platform != "linux":
        return False
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    except (OSError, ValueError):
        return False
    return True


def _take_requests(requests: "queue.SimpleQueue[bytes]") -> None:
    """Hand on each line of standard input, and end the process where it ends."""
    begun: list[bytes] = []
    while block := os.read(0, 65536):
        *ends, rest = block.split(b"\n")
        for end in ends:
            requests.put(b"".join([*begun, end]))
            begun.clear()
        # A whole text may come in many blocks.
        begun.append(rest)
    os._exit(0)


def _watch_memory(memory: int, busy: threading.Event, limited: bool) -> None:
    """End the process, while it reads a file, before it has `memory` bytes.

    The system's own limit would do, but PDFium aborts when it meets it, and then nobody could tell why.
    """
    pause = threading.Event()
    allowed = memory * _SHARE_OF_LIMIT if limited else memory
    while busy.wait():
        if _memory_in_use() > allowed:
            os._exit(TOO_MUCH_MEMORY)
        pause.wait(_SECONDS_BETWEEN_LOOKS)


def _memory_in_use() -> int:
    """Measure this process's memory in bytes; on macOS, the most that it ever had."""
    if sys.platform != "linux":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss: Linux starts it at the parent's size.
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _serve(path: Path, out: int) -> None:
    sha256 = None
    try:
        data, sha256, problem = _load(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        _send(out, {"sha256": sha256})
        found = refuse(f"could not be read: {(reason or str(error)).lower()}")
    else:
        _send(out, {"sha256": sha256})
        found = refuse(problem) if problem else _extract(path, data)
    _send(out, found._asdict() | {"sha256": found.sha256 or sha256})


def _split(text: str, budget: int, out: int, *, references: bool) -> None:
    # Imported only where it is needed: most documents are short.
    from distllm.documents.splitting import split
    from distllm.domain.tokens import estimate_tokens

    spans = split(text, budget, estimate_tokens, references=references)
    _send(out, [(span.first, span.last) for span in spans])


def _load(path: Path) -> tuple[bytes, str, str | None]:
    """Read a file's bytes and hash them; where they are too many for its kind, hash them only.

    Returns the bytes, the SHA-256 in hexadecimal, and the problem or None. Raises OSError.
    """
    # O_NONBLOCK: opening a named pipe that nobody writes to would wait for ever.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is not a regular file")
        digest = hashlib.sha256()
        blocks: list[bytes] = []
        size = largest = 0
        while block := file.read(_BLOCK):
            largest = largest or LARGEST[sniff(block, kind_of(path))]
            digest.update(block)
            size += len(block)
            if size > largest:
                blocks.clear()
            else:
                blocks.append(block)
    too_large = f"is larger than {largest // 1_000_000} MB" if size > largest else None
    return b"".join(blocks), digest.hexdigest(), too_large


def _extract(path: Path, data: bytes) -> Extract:
    if not data:
        return refuse("is empty")
    kind = kind_of(path)
    try:
        found = extractor(sniff(data[:HEAD], kind), path)(data)
    except MemoryError:
        raise
    except Exception as error:
        # Whatever a file does to an extractor is that file's problem and no other's.
        return refuse(f"could not be read: {type(error).__name__}: {error}")
    if kind is None and found.problem == "is binary, not a text":
        return refuse(f"is not a text, nor any other kind that distllm reads ({known_suffixes()})")
    return found


def _send(out: int, message: object) -> None:
    body = json.dumps(message, ensure_ascii=False).encode(errors="replace")
    view = memoryview(len(body).to_bytes(8, "big") + body)
    while view:
        view = view[os.write(out, view) :]


if __name__ == "__main__":
    main()
