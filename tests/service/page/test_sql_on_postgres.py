"""The page for SQL of one's own, of a database on PostgreSQL."""

from selectolax.lexbor import LexborHTMLParser as Html

from distllm.domain.places import PostgresUrl
from tests.service.conftest import opened
from tests.service.page.test_reading import read, text

SESSIONS = "select+count(*)+from+pg_stat_activity"


async def test_sql_is_answered_within_limits_and_changes_nothing(postgres_url: str) -> None:
    async with opened(PostgresUrl(postgres_url), working=False) as house:
        for example in ("select+*+from+answers", "select+*+from+worker_stats", "select+count(*)+from+part_progress"):
            assert (await house.ask("GET", f"/sql?sql={example}")).status == 200
        for refused in ("delete+from+jobs+returning+id", "select+nosuch", SESSIONS, "select+1;+select+2"):
            answer = await house.ask("GET", f"/sql?sql={refused}")
            assert answer.status == 422
            assert "this query cannot be run" in text(Html(answer.body), ".problem")
        many = "with recursive n(i) as (select 1 union all select i%2B1 from n) select i from n"
        page = await read(house, f"/sql?sql={many.replace(' ', '+')}")
        assert len(page.css(".sql tbody tr")) == 1_000
        assert "Only the first 1,000 rows are shown" in text(page, "main")
