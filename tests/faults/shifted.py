"""distllm with a clock that is off by the seconds in a file, which may change while it runs.

python -m tests.faults.shifted FILE COMMAND…
"""

import sys
import time
from pathlib import Path


def main() -> int:
    """Run a command on the shifted clock."""
    file, real = Path(sys.argv[1]), time.time
    time.time = lambda: real() + float(file.read_text() or 0)
    # What asks for the time keeps the function that it finds.
    from distllm.cli import main as distllm

    sys.argv[1:] = sys.argv[2:]
    return distllm()


if __name__ == "__main__":
    sys.exit(main())
