"""A text that no window holds is read in parts, also when it comes over HTTP."""

from pathlib import Path

from tests.fakes.server import FakeServer
from tests.service.conftest import opened


async def test_a_long_text_is_read_in_parts_and_answered_whole(db: Path) -> None:
    text = "\n\n".join(f"This is paragraph {n}, which tells of matter {n} and of no other." for n in range(1500))
    async with FakeServer(slots=2, context=8192) as server, opened(db, server) as house:
        await house.submit(text)
        ended = await house.until_ended(1)
        assert (ended["state"], ended["total"], ended["done"]) == ("completed", 1, 1)
        [row] = (await house.get("/jobs/1/results")).body["results"]
        assert row["parts"] > 1
        assert len(server.requests) > row["parts"]
