"""The process of the embedded worker: llama.cpp's server with one model, until the parent is gone.

    python -m distllm.workers.embedded_child MODEL.gguf NAME CONTEXT

NAME is what the server calls the model; CONTEXT its window in tokens, 0 for the model's own. Prints one line
of JSON, `{"url": …, "key": …}` or `{"error": …}`, and serves until standard input ends, as it does when the
parent ends in whatever way.
"""

import ctypes
import fcntl
import json
import os
import secrets
import select
import signal
import sys
from typing import Any

PROMPT_CACHE = 1024
"""MiB of memory for prompts that have left the slot; llama.cpp's own default is 8 GiB."""


def main() -> None:
    """Serve until standard input ends."""
    leave_when_input_ends()
    told = os.fdopen(os.dup(1), "w")
    # Whatever a library prints must not get between the parent and its line.
    os.dup2(2, 1)
    path, name, context = sys.argv[1:]
    try:
        server, key = serve(path, name, int(context))
    except Exception as error:
        print(json.dumps({"error": str(error) or type(error).__name__}), file=told, flush=True)
        # Not at once: llama.cpp's thread may still have to say why.
        sys.exit(1)
    print(json.dumps({"url": server.listening_address, "key": key}), file=told, flush=True)
    told.close()
    # llama.cpp computes in threads of its own, without Python's lock, so this returns at once.
    while os.read(0, 4096):
        pass
    os._exit(0)


def serve(path: str, name: str, context: int) -> tuple[Any, str]:
    """Load the model and open the server on a free port of the loopback; return it with its key."""
    import xllamacpp

    key = secrets.token_urlsafe(16)
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {name}
    params.n_parallel = 1
    params.n_ctx = context
    # llama.cpp's threads spin while they wait for each other: where each core has one and something else
    # runs too, they were measured 4 times slower in reading and 40 times in writing than a single one.
    threads = max(1, (os.cpu_count() or 2) // 2)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    # Other users of the machine, and web pages in its browser, have no business here.
    params.api_keys = [key]
    params.cors_origins = ""
    params.ui = False
    params.warmup = False
    params.cache_ram_mib = PROMPT_CACHE
    # Errors alone: the parent shows why a model did not load.
    params.verbosity = 1
    return xllamacpp.Server(params), key


def leave_when_input_ends() -> None:
    """Have the kernel end this process when standard input ends, whatever it is doing then.

    Loading a model holds Python's lock for seconds, so no thread of Python could see the end; a signal
    whose handler is the C function `_exit` needs no lock.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGIO, ctypes.cast(libc._exit, ctypes.c_void_p))
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([0], [], [], 0)[0]:
        os._exit(0)


if __name__ == "__main__":
    main()
