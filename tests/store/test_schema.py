"""Migrations lead to the schema that the code speaks of, whole or not at all."""

import re
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData, create_engine, create_mock_engine

from distllm.domain.errors import DistllmError
from distllm.domain.states import FINAL, PromptState
from distllm.insights import progress, reading
from distllm.store.migrate import connect, migrations_folder, revision_of, revisions, upgrade
from distllm.store.reads import open_reader
from distllm.store.tables import metadata
from tests.postgres_server import PostgresServer
from tests.store.store_kit import PostgresStore, Store, add_job

PROGRESS = "job_id job state total pending leased done failed cancelled started_at finished_at"
VIEWS = {
    "answers": "job_id job document title prompt answer data model worker attempts finish_reason thinking proof "
    "prompt_tokens cached_tokens completion_tokens sent_tokens parts reused_from seconds finished_at",
    "job_progress": PROGRESS,
    "part_progress": PROGRESS,
    "worker_stats": "worker type healthy requests succeeded failed success_rate avg_seconds min_seconds max_seconds "
    "requests_per_second tokens_per_second last_seen_at",
    "failures": "job_id document prompt attempts worker error failed_at",
}
BROKEN = (sqlite3.IntegrityError, asyncpg.IntegrityConstraintViolationError)
ROOT = Path(__file__).resolve().parents[2]


def tables_and_indexes(path: Path) -> dict[str, tuple[list[str], list[str]]]:
    """By name: the columns of a table in order and its constraints, or the whole statement of an index."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL "
            "AND name NOT IN ('alembic_version', 'sqlite_sequence')"
        ).fetchall()
    schema = {}
    for name, sql in found:
        if sql.startswith("CREATE TABLE"):
            # A column that was added later stands behind the constraints.
            parts = _parts(sql[sql.index("(") + 1 : sql.rindex(")")])
            constraints = sorted(part for part in parts if part.startswith("CONSTRAINT"))
            schema[name] = ([part for part in parts if not part.startswith("CONSTRAINT")], constraints)
        else:
            schema[name] = ([re.sub(r"\s+", " ", sql)], [])
    return schema


def _parts(inside: str) -> list[str]:
    """The columns and constraints of a table: what commas part, outside of brackets."""
    depth, parts = 0, [""]
    for character in re.sub(r"\s+", " ", inside):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def test_migrations_and_tables_agree(template: Path, tmp_path: Path) -> None:
    declared = tmp_path / "declared.db"
    engine = create_engine(f"sqlite:///{declared}")
    metadata.create_all(engine)
    engine.dispose()
    assert tables_and_indexes(template) == tables_and_indexes(declared)


def test_migrations_keep_the_conditions_of_the_partial_indexes(template: Path) -> None:
    ready = "WHERE state = 'pending' AND waits_for = 0"
    found = {name: " ".join(lines) for name, (lines, _) in tables_and_indexes(template).items()}
    assert found["ix_prompts_ready"].endswith(f"(job_id, tokens DESC, reading_id, id) {ready}")
    assert found["ix_prompts_ready_reading"].endswith(f"(reading_id) {ready}")
    assert found["ix_prompts_held"].endswith("(holder) WHERE state = 'leased'")


# Each part of the schema of this database, as PostgreSQL itself says it.
CATALOG = """
SELECT c.relname AS of, 'column ' || lpad(CAST(a.attnum AS TEXT), 3) AS what,
       concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
UNION ALL
SELECT CAST(conrelid::regclass AS TEXT), 'constraint ' || conname, pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT tablename, 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
"""


def declared_on_postgres() -> list[str]:
    """The statements that make what the code speaks of, with the conditions of SQLite's partial indexes."""
    declared = MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.sorted_tables:
        for index in table.to_metadata(declared).indexes:
            index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]
    statements: list[str] = []
    engine = create_mock_engine(
        "postgresql+asyncpg://", lambda made, *_, **__: statements.append(str(made.compile(dialect=engine.dialect)))
    )
    declared.create_all(engine, checkfirst=False)
    return statements


def test_on_postgres_migrations_and_tables_agree(
    postgres_server: PostgresServer, postgres_url: str, empty_postgres_url: str
) -> None:
    with closing(PostgresStore(postgres_server, empty_postgres_url)) as empty:
        for statement in declared_on_postgres():
            empty.rows(statement)
        declared = {(of, what): said for of, what, said in empty.rows(CATALOG)}
    with closing(PostgresStore(postgres_server, postgres_url)) as store:
        migrated = {(of, what): said for of, what, said in store.rows(CATALOG) if of != "alembic_version"}
    assert migrated == declared
    assert migrated["prompts", "index ix_prompts_ready"].endswith(
        "(job_id, tokens DESC, reading_id, id) WHERE ((state = 'pending'::text) AND (waits_for = 0))"
    )


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_the_columns_that_were_promised(store: Store, view: str) -> None:
    assert store.columns(view) == VIEWS[view].split()


def test_documents_have_the_columns_that_were_promised(store: Store) -> None:
    assert {*store.columns("documents")} >= {"id", "sha256", "title", "pages", "characters", "text", "problem"}


def test_times_in_views_are_utc_text(store: Store) -> None:
    add_job(store, [])
    assert store.rows("SELECT finished_at FROM job_progress") == [("2027-01-15T08:00:00Z",)]


def test_the_check_of_states_and_the_table_of_states_agree(template: Path) -> None:
    checks = " ".join(tables_and_indexes(template)["prompts"][1])
    listed = re.search(r"ck_prompts_state CHECK \(state IN \((.*?)\)\)", checks)
    final = re.search(r"ck_prompts_final_has_end CHECK \(\(state IN \((.*?)\)\)", checks)
    assert listed is not None
    assert final is not None
    assert listed[1] == ", ".join(f"'{state}'" for state in PromptState)
    assert set(re.findall(r"'(\w+)'", final[1])) == set(FINAL)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("state = 'leased'", "leased_has_holder"),
        ("holder = 1", "leased_has_holder"),
        ("state = 'done'", "final_has_end"),
        ("state = 'failed'", "final_has_end"),
        ("state = 'cancelled'", "final_has_end"),
        ("finished_at = 5", "final_has_end"),
        ("state = 'sleeping'", "state"),
        ("waits_for = -1", "waits_for"),
        ("template_id = NULL", "question"),
        ("body = '{}'", "question"),
    ],
)
def test_a_prompt_of_impossible_shape_cannot_be_stored(store: Store, change: str, check: str) -> None:
    add_job(store, ["a paper"])
    store.coordinator()
    with pytest.raises(BROKEN, match=rf"\bck_prompts_{check}\b"):
        store.rows(f"UPDATE prompts SET {change}")


def test_a_second_result_of_a_prompt_cannot_be_stored(store: Store) -> None:
    add_job(store, ["a paper"])
    result = (
        "INSERT INTO results (prompt_id, parts, seconds, finished_at, finish_reason, proof, model, answer) "
        "VALUES (1, 1, 1, 1, 'stop', 'proven', 'm', 'a')"
    )
    store.rows("BEGIN")
    store.rows(result)
    with pytest.raises(BROKEN, match=r"results\.prompt_id|pk_results"):
        store.rows(result)
    store.rows("ROLLBACK")


def test_a_number_is_no_text(store: Store) -> None:
    add_job(store, ["a paper"])
    with pytest.raises((sqlite3.IntegrityError, asyncpg.DataError), match=r"cannot store TEXT value|invalid input"):
        store.rows("UPDATE prompts SET tokens = 'many'")


def test_a_newer_schema_is_refused_in_one_line(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DistllmError, match="newer distllm") as refused:
        upgrade(path)
    assert "\n" not in str(refused.value)


def test_a_database_of_another_program_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE jobs (id)")
    before = path.read_bytes()
    with pytest.raises(DistllmError, match="another program"):
        upgrade(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Notes about dams. " * 100)
    with pytest.raises(DistllmError, match="cannot be read as a database"):
        upgrade(path)
    assert path.read_text() == "Notes about dams. " * 100


def test_upgrading_a_current_file_changes_nothing(path: Path) -> None:
    before = path.read_bytes()
    upgrade(path)
    assert path.read_bytes() == before
    assert revision_of(path) == revisions()[-1]


def test_a_new_file_is_marked_as_distllms(template: Path) -> None:
    with closing(sqlite3.connect(template)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (0x646C6C6D,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


_UPGRADER = """
import sys
from pathlib import Path
from alembic import command
from distllm.store.migrate import upgrade
for line in sys.stdin:
    try:
        upgrade(Path(line.strip()))
    except Exception as error:
        print(type(error).__name__, str(error).replace(chr(10), " "), flush=True)
    else:
        print("upgraded", flush=True)
"""


def test_two_processes_that_upgrade_a_new_file_at_once_both_succeed(tmp_path: Path) -> None:
    command_line = [sys.executable, "-c", _UPGRADER]
    pipes = [subprocess.Popen(command_line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for attempt in range(25):
            path = tmp_path / f"{attempt}.db"
            for process in pipes:
                assert process.stdin is not None
                process.stdin.write(f"{path}\n")
                process.stdin.flush()
            assert [process.stdout.readline() for process in pipes if process.stdout] == ["upgraded\n"] * 2
            assert revision_of(path) == revisions()[-1]
    finally:
        for process in pipes:
            process.communicate(timeout=30)


def broken_migrations(folder: Path, revision: str, after: str | None) -> Config:
    """A copy of the migrations with one that creates a table and then fails."""
    copy = Path(shutil.copytree(migrations_folder(), folder / "migrations"))
    if after is None:
        for file in (copy / "versions").glob("*.py"):
            file.unlink()
    copy.joinpath("versions", f"{revision}_breaks.py").write_text(
        f"from alembic import op\n\nrevision = {revision!r}\ndown_revision = {after!r}\n"
        "branch_labels = None\ndepends_on = None\n\n\ndef upgrade() -> None:\n"
        '    op.execute("CREATE TABLE half (id INTEGER)")\n'
        '    raise RuntimeError("killed midway")\n'
    )
    config = Config()
    config.set_main_option("script_location", str(copy))
    return config


def run_to_head(config: Config, path: Path) -> None:
    with connect(str(path)) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def names_in(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def test_a_migration_that_fails_midway_leaves_nothing(path: Path, tmp_path: Path) -> None:
    before = names_in(path)
    config = broken_migrations(tmp_path, "9999", after=revisions()[-1])
    with pytest.raises(RuntimeError, match="killed midway"):
        run_to_head(config, path)
    assert names_in(path) == before
    assert revision_of(path) == revisions()[-1]


def test_a_first_migration_that_fails_leaves_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    config = broken_migrations(tmp_path, "0001", after=None)
    with pytest.raises(RuntimeError, match="killed midway"):
        run_to_head(config, path)
    assert names_in(path) == set()
    upgrade(path)
    assert revision_of(path) == revisions()[-1]


def test_the_migrations_are_found_in_a_clone() -> None:
    assert migrations_folder() == ROOT / "migrations"
    assert revisions() == sorted(path.name[:4] for path in (ROOT / "migrations" / "versions").glob("0*.py"))


@pytest.mark.long
def test_a_wheel_carries_its_migrations(tmp_path: Path) -> None:
    subprocess.run(
        ["uv", "build", "--wheel", "--quiet", "--out-dir", str(tmp_path), str(ROOT)], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {"distllm/migrations/env.py", "distllm/migrations/versions/0001_schema.py"} <= names
    make = "import sys; from pathlib import Path; from distllm.store import migrate; migrate.upgrade(Path(sys.argv[1]))"
    found = f"{make}; print(migrate.migrations_folder())"
    ran = subprocess.run(
        [sys.executable, "-c", found, str(tmp_path / "new.db")],
        cwd=tmp_path / "site",
        env={"PYTHONPATH": str(tmp_path / "site")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert ran.stdout.strip() == str(tmp_path / "site" / "distllm" / "migrations")
    assert revision_of(tmp_path / "new.db") == revisions()[-1]


async def test_a_job_of_an_older_schema_goes_on_and_says_nothing_of_its_reading(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    with connect(str(path)) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
    with closing(sqlite3.connect(path)) as old, old:
        old.execute(
            "INSERT INTO jobs (name, request_hash, model, params, created_at, submitted_at) "
            "VALUES ('old', 'hash', 'm', '{}', 1, 1)"
        )
        old.execute("INSERT INTO job_counters (job_id, coordinator_id, part, pending, done) VALUES (1, 0, 0, 5, 5)")
    async with open_reader(path) as reader:
        found = await progress(reader, 1, 2.0)
        assert found is not None
        assert (found.total, found.done, found.eta) == (10, 5, None)
        assert await reading(reader, 1) is None
    assert revision_of(path) == revisions()[-1]
