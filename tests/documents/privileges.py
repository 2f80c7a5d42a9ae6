"""Running code that may not read everything, also where the tests run as root."""

import os
import subprocess
import sys

# Linux's root keeps its identity and loses what lets it read any file; elsewhere nobody tests as root.
WITHOUT_PRIVILEGES = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


def run_without_privileges(code: str) -> str:
    """Run Python code in a process of its own, and return what it prints."""
    done = subprocess.run([*WITHOUT_PRIVILEGES, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()
