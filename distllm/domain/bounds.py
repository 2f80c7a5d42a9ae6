"""What people may ask for at most."""

MOST_TOKENS = 1_000_000
"""Of one answer."""

HOTTEST = 2.0
"""The highest temperature that servers take."""

HIGHEST_PRIORITY = 1_000_000
"""Of a job, and as far below zero."""
