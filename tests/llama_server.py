"""A real llama.cpp server with the small model, as a process of its own.

    python -m tests.llama_server --port 0 --slots 1 --context 4096

Prints its address as the first line, then serves until its standard input ends.
"""

import argparse
import os
import sys
from typing import Any

from distllm.workers.model_file import embedded_model_name, find_model_file

THREADS = 1
"""More than one is slower where several servers share two cores."""


def main() -> None:
    """Serve until the starting process ends, or closes the pipe."""
    parser = argparse.ArgumentParser(prog="tests.llama_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--context", type=int, default=4096, help="tokens of each slot's window")
    given = parser.parse_args()
    # llama.cpp prints to file descriptor 1, which must hold the address alone.
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    server = _serve(given.port, given.slots, given.context)
    print(server.listening_address, file=told, flush=True)
    sys.stdin.read()
    os._exit(0)


def _serve(port: int, slots: int, context: int) -> Any:
    import xllamacpp

    file = find_model_file(None)
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.model_alias = {embedded_model_name(file)}
    params.n_parallel = slots
    params.n_ctx = slots * context
    params.kv_unified = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.ui = False
    params.endpoint_metrics = True
    params.warmup = False
    params.verbosity = 1
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
