"""What several suites share is rewritten for pytest here, before any of them imports it."""

import pytest

pytest.register_assert_rewrite("tests.store.store_kit", "tests.export.export_kit", "tests.workers.worker_kit")
