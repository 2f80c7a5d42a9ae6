"""The first schema: tables, indexes and the views that people read."""

import re

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_REAL = sa.Double().with_variant(sa.REAL(), "sqlite")


def _time(column: str) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%SZ', {column}, 'unixepoch')"


_TIME = re.compile(r"strftime\('%Y-%m-%dT%H:%M:%SZ', (.+?), 'unixepoch'\)")


def _create(view: str, *, on_sqlite: bool) -> None:
    if not on_sqlite:
        view = _TIME.sub(r"""to_char(to_timestamp(\1) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')""", view)
        # As an operand a colon would be taken for a bound value.
        view = view.replace(":", "\\:")
    op.execute(view)


_ANSWERS = f"""
CREATE VIEW answers AS
SELECT p.job_id, j.name AS job, f.name AS document, d.title, t.name AS prompt, r.answer, r.data, r.model,
       w.name AS worker, (SELECT count(*) FROM attempts a WHERE a.prompt_id = p.id) AS attempts,
       r.finish_reason, r.thinking, r.proof, r.prompt_tokens, r.cached_tokens, r.completion_tokens,
       r.sent_tokens, r.parts, r.reused_from, r.seconds, {_time("r.finished_at")} AS finished_at
  FROM results r
  JOIN prompts p ON p.id = r.prompt_id AND p.parent_id IS NULL
  JOIN jobs j ON j.id = p.job_id
  LEFT JOIN job_documents f ON f.job_id = p.job_id AND f.document_id = p.document_id AND f.copy = 0
  LEFT JOIN documents d ON d.id = p.document_id
  LEFT JOIN templates t ON t.id = p.template_id
  LEFT JOIN workers w ON w.id = r.worker_id
"""


def _progress(name: str, part: int, join: str) -> str:
    return f"""
CREATE VIEW {name} AS
SELECT j.id AS job_id, j.name AS job,
       CASE WHEN j.finished_at IS NULL
            THEN CASE WHEN j.paused_at IS NOT NULL THEN 'paused'
                      WHEN j.started_at IS NOT NULL THEN 'running'
                      ELSE 'pending' END
            ELSE CASE WHEN j.cancel_requested_at IS NOT NULL THEN 'cancelled'
                      WHEN coalesce(c.failed, 0) > 0 THEN 'failed'
                      ELSE 'completed' END END AS state,
       coalesce(c.pending + c.leased + c.done + c.failed + c.cancelled, 0) AS total,
       coalesce(c.pending, 0) AS pending, coalesce(c.leased, 0) AS leased, coalesce(c.done, 0) AS done,
       coalesce(c.failed, 0) AS failed, coalesce(c.cancelled, 0) AS cancelled,
       {_time("j.started_at")} AS started_at, {_time("j.finished_at")} AS finished_at
  FROM jobs j
  {join} (SELECT job_id, sum(pending) AS pending, sum(leased) AS leased, sum(done) AS done,
               sum(failed) AS failed, sum(cancelled) AS cancelled
          FROM job_counters WHERE part = {part} GROUP BY job_id) c ON c.job_id = j.id
"""


_WORKER_STATS = f"""
CREATE VIEW worker_stats AS
SELECT name AS worker, type, healthy, requests, succeeded, failed,
       CASE WHEN requests > 0 THEN 1.0 * succeeded / requests END AS success_rate,
       CASE WHEN succeeded > 0 THEN seconds / succeeded END AS avg_seconds, min_seconds, max_seconds,
       CASE WHEN busy_seconds > 0 THEN succeeded / busy_seconds END AS requests_per_second,
       CASE WHEN busy_seconds > 0 THEN completion_tokens / busy_seconds END AS tokens_per_second,
       {_time("last_seen_at")} AS last_seen_at
  FROM workers
"""

_FAILURES = f"""
CREATE VIEW failures AS
SELECT p.job_id, f.name AS document, t.name AS prompt,
       (SELECT count(*) FROM attempts a WHERE a.prompt_id = p.id) AS attempts,
       w.name AS worker, p.error, {_time("p.finished_at")} AS failed_at
  FROM prompts p
  LEFT JOIN job_documents f ON f.job_id = p.job_id AND f.document_id = p.document_id AND f.copy = 0
  LEFT JOIN templates t ON t.id = p.template_id
  LEFT JOIN workers w ON w.id = p.worker_id
 WHERE p.state = 'failed' AND p.parent_id IS NULL
"""


def upgrade() -> None:
    op.create_table(
        "coordinators",
        sa.Column("id", _INT, nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", _INT, nullable=False),
        sa.Column("started_at", _REAL, nullable=False),
        sa.Column("alive_until", _REAL, nullable=True),
        sa.Column("ended_at", _REAL, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_coordinators")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_table(
        "documents",
        sa.Column("id", _INT, nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("pages", _INT, nullable=True),
        sa.Column("characters", _INT, nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("created_at", _REAL, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_documents")),
        sa.UniqueConstraint("sha256", name=op.f("uq_documents_sha256")),
        sqlite_strict=True,
    )
    op.create_table(
        "jobs",
        sa.Column("id", _INT, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("submit_key", sa.Text(), nullable=True),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("preset", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("priority", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("served_at", _REAL, server_default=sa.text("0"), nullable=False),
        sa.Column("built", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", _REAL, nullable=False),
        sa.Column("submitted_at", _REAL, nullable=True),
        sa.Column("started_at", _REAL, nullable=True),
        sa.Column("paused_at", _REAL, nullable=True),
        sa.Column("cancel_requested_at", _REAL, nullable=True),
        sa.Column("finished_at", _REAL, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("submit_key", name=op.f("uq_jobs_submit_key")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(
        "ix_jobs_building", "jobs", ["request_hash"], unique=False, sqlite_where=sa.text("submitted_at IS NULL")
    )
    op.create_table(
        "workers",
        sa.Column("id", _INT, nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("healthy", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("slots", _INT, nullable=True),
        sa.Column("requests", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("succeeded", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("failed", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("completion_tokens", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("seconds", _REAL, server_default=sa.text("0"), nullable=False),
        sa.Column("min_seconds", _REAL, nullable=True),
        sa.Column("max_seconds", _REAL, nullable=True),
        sa.Column("busy_seconds", _REAL, server_default=sa.text("0"), nullable=False),
        sa.Column("last_seen_at", _REAL, nullable=True),
        sa.Column("breaker", sa.Text(), server_default=sa.text("'closed'"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
        sa.UniqueConstraint("identity", name=op.f("uq_workers_identity")),
        sqlite_strict=True,
    )
    op.create_table(
        "job_counters",
        sa.Column("job_id", _INT, nullable=False),
        sa.Column("coordinator_id", _INT, nullable=False),
        sa.Column("part", _INT, nullable=False),
        sa.Column("pending", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("leased", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("done", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("failed", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("cancelled", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("prompt_tokens", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("cached_tokens", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("completion_tokens", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("truncated", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("unproven", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("reused", _INT, server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_counters_job_id")),
        sa.PrimaryKeyConstraint("job_id", "coordinator_id", "part", name=op.f("pk_job_counters")),
        sqlite_strict=True,
    )
    op.create_table(
        "readings",
        sa.Column("id", _INT, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("prefix_hash", sa.Text(), nullable=False),
        sa.Column("document_id", _INT, nullable=True),
        sa.Column("first", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("last", _INT, nullable=True),
        sa.Column("tokens", _INT, nullable=False),
        sa.Column("tokens_read", _INT, nullable=True),
        sa.Column("worker_id", _INT, nullable=True),
        sa.Column("read_at", _REAL, nullable=True),
        sa.Column("system", sa.Text(), nullable=True),
        sa.CheckConstraint("(document_id IS NULL) = (system IS NOT NULL)", name=op.f("ck_readings_source")),
        sa.ForeignKeyConstraint(["document_id"], ["documents.id"], name=op.f("fk_readings_document_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_readings_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_readings")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_readings_model_prefix_hash"), "readings", ["model", "prefix_hash"], unique=True)
    op.create_table(
        "templates",
        sa.Column("id", _INT, nullable=False),
        sa.Column("job_id", _INT, nullable=False),
        sa.Column("ordinal", _INT, nullable=False),
        sa.Column("max_tokens", _INT, nullable=False),
        sa.Column("tokens", _INT, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_templates_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_templates")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_templates_job_id_name"), "templates", ["job_id", "name"], unique=True)
    op.create_table(
        "worker_metrics",
        sa.Column("id", _INT, nullable=False),
        sa.Column("worker_id", _INT, nullable=False),
        sa.Column("at", _REAL, nullable=False),
        sa.Column("healthy", _INT, nullable=False),
        sa.Column("in_flight", _INT, nullable=False),
        sa.Column("requests", _INT, nullable=False),
        sa.Column("succeeded", _INT, nullable=False),
        sa.Column("failed", _INT, nullable=False),
        sa.Column("completion_tokens", _INT, nullable=False),
        sa.Column("seconds", _REAL, nullable=False),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_worker_metrics_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker_metrics")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_worker_metrics_worker_id_at"), "worker_metrics", ["worker_id", "at"], unique=False)
    op.create_table(
        "worker_models",
        sa.Column("worker_id", _INT, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("context_length", _INT, nullable=True),
        sa.Column("loaded", _INT, nullable=True),
        sa.Column("prefill_rate", _REAL, nullable=True),
        sa.Column("decode_rate", _REAL, nullable=True),
        sa.Column("seen_at", _REAL, nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_worker_models_worker_id")),
        sa.PrimaryKeyConstraint("worker_id", "model", name=op.f("pk_worker_models")),
        sqlite_strict=True,
    )
    op.create_table(
        "job_documents",
        sa.Column("job_id", _INT, nullable=False),
        sa.Column("ordinal", _INT, nullable=False),
        sa.Column("document_id", _INT, nullable=True),
        sa.Column("reading_id", _INT, nullable=True),
        sa.Column("copy", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("mtime", _REAL, nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["document_id"], ["documents.id"], name=op.f("fk_job_documents_document_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_documents_job_id")),
        sa.ForeignKeyConstraint(["reading_id"], ["readings.id"], name=op.f("fk_job_documents_reading_id")),
        sa.PrimaryKeyConstraint("job_id", "ordinal", name=op.f("pk_job_documents")),
        sqlite_strict=True,
    )
    op.create_index(
        op.f("ix_job_documents_job_id_document_id"), "job_documents", ["job_id", "document_id"], unique=False
    )
    op.create_table(
        "prompts",
        sa.Column("id", _INT, nullable=False),
        sa.Column("job_id", _INT, nullable=False),
        sa.Column("document_id", _INT, nullable=True),
        sa.Column("reading_id", _INT, nullable=False),
        sa.Column("template_id", _INT, nullable=True),
        sa.Column("parent_id", _INT, nullable=True),
        sa.Column("waits_for", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("tokens", _INT, nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("available_at", _REAL, server_default=sa.text("0"), nullable=False),
        sa.Column("lease", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("holder", _INT, nullable=True),
        sa.Column("worker_id", _INT, nullable=True),
        sa.Column("failures", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("losses", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("deaths_alone", _INT, server_default=sa.text("0"), nullable=False),
        sa.Column("finished_at", _REAL, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.CheckConstraint("(state = 'leased') = (holder IS NOT NULL)", name=op.f("ck_prompts_leased_has_holder")),
        sa.CheckConstraint(
            "(state IN ('done', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name=op.f("ck_prompts_final_has_end"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'leased', 'done', 'failed', 'cancelled')", name=op.f("ck_prompts_state")
        ),
        sa.CheckConstraint("(template_id IS NULL) = (body IS NOT NULL)", name=op.f("ck_prompts_question")),
        sa.CheckConstraint("waits_for >= 0", name=op.f("ck_prompts_waits_for")),
        sa.ForeignKeyConstraint(["document_id"], ["documents.id"], name=op.f("fk_prompts_document_id")),
        sa.ForeignKeyConstraint(["holder"], ["coordinators.id"], name=op.f("fk_prompts_holder")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_prompts_job_id")),
        sa.ForeignKeyConstraint(["parent_id"], ["prompts.id"], name=op.f("fk_prompts_parent_id")),
        sa.ForeignKeyConstraint(["reading_id"], ["readings.id"], name=op.f("fk_prompts_reading_id")),
        sa.ForeignKeyConstraint(["template_id"], ["templates.id"], name=op.f("fk_prompts_template_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_prompts_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompts")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_prompts_failed",
        "prompts",
        ["job_id"],
        unique=False,
        sqlite_where=sa.text("state = 'failed'"),
        postgresql_where=sa.text("state = 'failed'"),
    )
    op.create_index(
        "ix_prompts_held",
        "prompts",
        ["holder"],
        unique=False,
        sqlite_where=sa.text("state = 'leased'"),
        postgresql_where=sa.text("state = 'leased'"),
    )
    op.create_index("ix_prompts_job", "prompts", ["job_id", "document_id"], unique=False)
    op.create_index(
        "ix_prompts_parent",
        "prompts",
        ["parent_id"],
        unique=False,
        sqlite_where=sa.text("parent_id IS NOT NULL"),
        postgresql_where=sa.text("parent_id IS NOT NULL"),
    )
    op.create_index(
        "ix_prompts_ready",
        "prompts",
        ["job_id", sa.literal_column("tokens DESC"), "reading_id", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'pending' AND waits_for = 0"),
        postgresql_where=sa.text("state = 'pending' AND waits_for = 0"),
    )
    op.create_index(
        "ix_prompts_ready_reading",
        "prompts",
        ["reading_id"],
        unique=False,
        sqlite_where=sa.text("state = 'pending' AND waits_for = 0"),
        postgresql_where=sa.text("state = 'pending' AND waits_for = 0"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", _INT, nullable=False),
        sa.Column("prompt_id", _INT, nullable=False),
        sa.Column("lease", _INT, nullable=False),
        sa.Column("worker_id", _INT, nullable=False),
        sa.Column("coordinator_id", _INT, nullable=False),
        sa.Column("started_at", _REAL, nullable=False),
        sa.Column("finished_at", _REAL, nullable=True),
        sa.Column("first_token_seconds", _REAL, nullable=True),
        sa.Column("sent_tokens", _INT, nullable=False),
        sa.Column("prompt_tokens", _INT, nullable=True),
        sa.Column("cached_tokens", _INT, nullable=True),
        sa.Column("completion_tokens", _INT, nullable=True),
        sa.Column("prefill_seconds", _REAL, nullable=True),
        sa.Column("decode_seconds", _REAL, nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["coordinator_id"], ["coordinators.id"], name=op.f("fk_attempts_coordinator_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_attempts_prompt_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_attempts_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_attempts_open",
        "attempts",
        ["coordinator_id"],
        unique=False,
        sqlite_where=sa.text("outcome IS NULL"),
        postgresql_where=sa.text("outcome IS NULL"),
    )
    op.create_index(op.f("ix_attempts_prompt_id"), "attempts", ["prompt_id"], unique=False)
    op.create_table(
        "refusals",
        sa.Column("prompt_id", _INT, nullable=False),
        sa.Column("worker_id", _INT, nullable=False),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_refusals_prompt_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_refusals_worker_id")),
        sa.PrimaryKeyConstraint("prompt_id", "worker_id", name=op.f("pk_refusals")),
        sqlite_strict=True,
    )
    op.create_table(
        "results",
        sa.Column("prompt_id", _INT, nullable=False),
        sa.Column("attempt_id", _INT, nullable=True),
        sa.Column("reused_from", _INT, nullable=True),
        sa.Column("worker_id", _INT, nullable=True),
        sa.Column("sent_tokens", _INT, nullable=True),
        sa.Column("prompt_tokens", _INT, nullable=True),
        sa.Column("cached_tokens", _INT, nullable=True),
        sa.Column("completion_tokens", _INT, nullable=True),
        sa.Column("parts", _INT, nullable=False),
        sa.Column("seconds", _REAL, nullable=False),
        sa.Column("finished_at", _REAL, nullable=False),
        sa.Column("finish_reason", sa.Text(), nullable=False),
        sa.Column("proof", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=True),
        sa.Column("thinking", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.CheckConstraint("proof IN ('proven', 'unproven')", name=op.f("ck_results_proof")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_results_prompt_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_results_worker_id")),
        sa.PrimaryKeyConstraint("prompt_id", name=op.f("pk_results")),
        sqlite_strict=True,
    )
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    progress = _progress("job_progress", 0, "LEFT JOIN"), _progress("part_progress", 1, "JOIN")
    for view in (_ANSWERS, *progress, _WORKER_STATS, _FAILURES):
        _create(view, on_sqlite=on_sqlite)
    if on_sqlite:
        op.execute("PRAGMA application_id = 1684827245")
        op.execute("PRAGMA user_version = 1")
