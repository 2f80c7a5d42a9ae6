"""Programs that measure; each prints ratios of one run. See `--help` of each."""

import os

# What they start starts as at a user's, whose Python keeps the bytecode of what it has compiled once.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
