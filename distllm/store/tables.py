"""The schema. Times are seconds since 1970 in UTC, token counts are whole tokens.

The migrations must lead to exactly this; a test compares them. They also give PostgreSQL the conditions of the partial
indexes: naming that dialect here would have every command import it. Wide texts stand last in their rows, so
that a row's small columns are read without them.
"""

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeEngine

from distllm.domain.policy import LOSSES_TO_SUSPECT
from distllm.domain.states import FINAL, PromptState

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_INT: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")
_REAL: TypeEngine[float] = Double().with_variant(REAL(), "sqlite")


def _names(states: frozenset[PromptState] | type[PromptState]) -> str:
    return ", ".join(f"'{state}'" for state in PromptState if state in states)


def _id() -> Column[int]:
    return Column("id", _INT, primary_key=True)


def _to(table: str, name: str, *, null: bool = False, key: bool = False) -> Column[int]:
    return Column(name, _INT, ForeignKey(f"{table}.id"), nullable=null, primary_key=key)


def _int(name: str, *, null: bool = False, zero: bool = False) -> Column[int]:
    return Column(name, _INT, nullable=null, server_default=text("0") if zero else None)


def _real(name: str, *, null: bool = False, zero: bool = False) -> Column[float]:
    return Column(name, _REAL, nullable=null, server_default=text("0") if zero else None)


def _text(name: str, *, null: bool = False, unique: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null, unique=unique)


_AnyColumn = Column[int] | Column[float] | Column[str] | Column[bytes]


def _table(name: str, *parts: _AnyColumn | CheckConstraint | Index) -> Table:
    return Table(name, metadata, *parts, sqlite_strict=True)


# An id is never given twice, so a coordinator's id is its epoch. On PostgreSQL it lives until `alive_until` at
# least, by the database's clock, and whatever becomes of it, no request of it lasts beyond `busy_until`. `wants` are
# the ids of the workers that it could give work to now, as JSON.
coordinators = Table(
    "coordinators",
    metadata,
    _id(),
    _text("host"),
    _int("pid"),
    _real("started_at"),
    _real("alive_until", null=True),
    _real("ended_at", null=True),
    _real("busy_until", zero=True),
    Column("wants", Text, nullable=False, server_default=text("'[]'")),
    sqlite_autoincrement=True,
    sqlite_strict=True,
)

# A job without `submitted_at` is still being built, and nothing of it is leased; `built` counts the
# documents whose prompts exist already, so that another process can go on. A `fresh` job asks everything anew.
# `window` is the largest context window that its model had when its documents were split, null where none was known;
# if `with_references` is 0, those of documents that are split are not read. `host` is the machine that has its files,
# empty where there is only one.
jobs = Table(
    "jobs",
    metadata,
    _id(),
    _text("name"),
    _text("submit_key", null=True, unique=True),
    _text("request_hash"),
    _text("preset", null=True),
    _text("model"),
    _text("params"),
    _int("priority", zero=True),
    _real("served_at", zero=True),
    _int("built", zero=True),
    _real("created_at"),
    _real("submitted_at", null=True),
    _real("started_at", null=True),
    _real("paused_at", null=True),
    _real("cancel_requested_at", null=True),
    _real("finished_at", null=True),
    _int("fresh", zero=True),
    _int("window", null=True),
    Column("with_references", _INT, nullable=False, server_default=text("1")),
    Column("host", Text, nullable=False, server_default=text("''")),
    Index("ix_jobs_unfinished", "request_hash", sqlite_where=text("finished_at IS NULL")),
    sqlite_autoincrement=True,
    sqlite_strict=True,
)

documents = _table(
    "documents",
    _id(),
    _text("sha256", null=True, unique=True),
    _text("title", null=True),
    _int("pages", null=True),
    _int("characters"),
    _text("problem", null=True),
    _real("created_at"),
    _text("text"),
)

# `copy` is 1 where an earlier file of the same job has the same bytes: it is asked about once.
job_documents = _table(
    "job_documents",
    _to("jobs", "job_id", key=True),
    Column("ordinal", _INT, primary_key=True),
    _to("documents", "document_id", null=True),
    _to("readings", "reading_id", null=True),
    _int("copy", zero=True),
    _real("mtime", null=True),
    _text("name"),
    _text("path"),
    Index(None, "job_id", "document_id"),
)
# What needs a document or a reading, for those that nothing needs any more.
_OF_DOCUMENT = text("document_id IS NOT NULL")
_OF_READING = text("reading_id IS NOT NULL")
Index(
    "ix_job_documents_document",
    job_documents.c.document_id,
    sqlite_where=_OF_DOCUMENT,
)
Index("ix_job_documents_reading", job_documents.c.reading_id, sqlite_where=_OF_READING)

# `merge` says how the answers about the parts of a long document are put together, null where nobody has said how;
# `merge_tokens` are those of that and of the question.
templates = _table(
    "templates",
    _id(),
    _to("jobs", "job_id"),
    _int("ordinal"),
    _int("max_tokens"),
    _int("tokens"),
    _text("name"),
    _text("schema", null=True),
    _text("text"),
    _text("merge", null=True),
    _int("merge_tokens", zero=True),
    Index(None, "job_id", "name", unique=True),
)

# What a server reads once: a model and a system message, told apart by the hash of the message. `first`
# and `last` are the characters of a part; `tokens` is estimated, `tokens_read` what a server counted.
readings = _table(
    "readings",
    _id(),
    _text("model"),
    _text("prefix_hash"),
    _to("documents", "document_id", null=True),
    _int("first", zero=True),
    _int("last", null=True),
    _int("tokens"),
    _int("tokens_read", null=True),
    _to("workers", "worker_id", null=True),
    _real("read_at", null=True),
    _text("system", null=True),
    Index(None, "model", "prefix_hash", unique=True),
    CheckConstraint("(document_id IS NULL) = (system IS NOT NULL)", name="source"),
)
Index("ix_readings_document", readings.c.document_id, sqlite_where=_OF_DOCUMENT)

# The parts of a job's long documents, from the time when these are split until their prompts are built.
job_parts = _table(
    "job_parts",
    _to("jobs", "job_id", key=True),
    Column("ordinal", _INT, primary_key=True),
    Column("part", _INT, primary_key=True),
    _to("readings", "reading_id"),
    Index(None, "reading_id"),
)

# The hot table. `tokens` is the context window that a prompt needs: what is sent, estimated from above,
# and its answer's `max_tokens`, which is the template's unless the prompt has one of its own. `worker_id` is the
# worker of the newest lease. `level` is 0 for what asks about a text, `part` of `parts` of a long document or all that
# its reading holds, and n for what puts together answers of lower levels, in the order of their ids.
_READY = text("state = 'pending' AND waits_for = 0")
prompts = _table(
    "prompts",
    _id(),
    _to("jobs", "job_id"),
    _to("documents", "document_id", null=True),
    _to("readings", "reading_id"),
    _to("templates", "template_id", null=True),
    _to("prompts", "parent_id", null=True),
    _int("waits_for", zero=True),
    _int("tokens"),
    Column("state", Text, nullable=False, server_default=text("'pending'")),
    _real("available_at", zero=True),
    _int("lease", zero=True),
    _to("coordinators", "holder", null=True),
    _to("workers", "worker_id", null=True),
    _int("failures", zero=True),
    _int("losses", zero=True),
    _int("deaths_alone", zero=True),
    _real("finished_at", null=True),
    _text("error", null=True),
    _text("body", null=True),
    _int("max_tokens", null=True),
    _int("level", zero=True),
    _int("part", null=True),
    _int("parts", null=True),
    CheckConstraint(f"state IN ({_names(PromptState)})", name="state"),
    CheckConstraint("(state = 'leased') = (holder IS NOT NULL)", name="leased_has_holder"),
    CheckConstraint(f"(state IN ({_names(FINAL)})) = (finished_at IS NOT NULL)", name="final_has_end"),
    CheckConstraint("waits_for >= 0", name="waits_for"),
    CheckConstraint("(template_id IS NULL) = (body IS NOT NULL)", name="question"),
)
Index(
    "ix_prompts_ready",
    prompts.c.job_id,
    prompts.c.tokens.desc(),
    prompts.c.reading_id,
    prompts.c.id,
    sqlite_where=_READY,
)
Index("ix_prompts_ready_reading", prompts.c.reading_id, sqlite_where=_READY)
_LEASED = text("state = 'leased'")
Index("ix_prompts_held", prompts.c.holder, sqlite_where=_LEASED)
_FAILED = text("state = 'failed'")
Index("ix_prompts_failed", prompts.c.job_id, sqlite_where=_FAILED)
_SUSPECTED = text(f"state = 'pending' AND losses >= {LOSSES_TO_SUSPECT}")
Index("ix_prompts_suspected", prompts.c.deaths_alone, sqlite_where=_SUSPECTED)
_ANSWERED = text("state = 'done'")
Index("ix_prompts_answered", prompts.c.reading_id, sqlite_where=_ANSWERED)
_PART = text("parent_id IS NOT NULL")
Index("ix_prompts_parent", prompts.c.parent_id, sqlite_where=_PART)
_MERGE = text("level > 0")
Index("ix_prompts_merges", prompts.c.job_id, prompts.c.level, sqlite_where=_MERGE)
Index("ix_prompts_job", prompts.c.job_id, prompts.c.document_id)
# The readings of all others are those of their job's files.
_OWN_READING = text("document_id IS NULL OR parent_id IS NOT NULL")
Index("ix_prompts_own_reading", prompts.c.reading_id, sqlite_where=_OWN_READING)
# PostgreSQL looks for what points at each row that is pruned; SQLite is told not to.
Index("ix_prompts_reading", prompts.c.reading_id).ddl_if(dialect="postgresql")
Index("ix_prompts_document", prompts.c.document_id, sqlite_where=_OF_DOCUMENT).ddl_if(dialect="postgresql")
# The indexes of SQLite have a row's id at their end anyway, so that a page goes on where the last one ended.
_LOOSE = text("document_id IS NULL")
_IN_ORDER = (prompts.c.job_id, prompts.c.id)
Index("ix_prompts_loose", *_IN_ORDER, sqlite_where=_LOOSE).ddl_if(dialect="postgresql")
Index("ix_prompts_failed_in_order", *_IN_ORDER, sqlite_where=_FAILED).ddl_if(dialect="postgresql")

# A worker that cannot take a prompt whatever is tried, so that it is not offered to it again.
refusals = _table(
    "refusals",
    _to("prompts", "prompt_id", key=True),
    _to("workers", "worker_id", key=True),
)

# An attempt's id holds the epoch of its coordinator in its upper half, so that it is known before it is
# written. `outcome` is null while it is in flight.
attempts = _table(
    "attempts",
    _id(),
    _to("prompts", "prompt_id"),
    _int("lease"),
    _to("workers", "worker_id"),
    _to("coordinators", "coordinator_id"),
    _real("started_at"),
    _real("finished_at", null=True),
    _real("first_token_seconds", null=True),
    _int("sent_tokens"),
    _int("prompt_tokens", null=True),
    _int("cached_tokens", null=True),
    _int("completion_tokens", null=True),
    _real("prefill_seconds", null=True),
    _real("decode_seconds", null=True),
    _text("outcome", null=True),
    _text("error", null=True),
    _text("answer", null=True),
    Index(None, "prompt_id"),
)
_OPEN = text("outcome IS NULL")
Index("ix_attempts_open", attempts.c.coordinator_id, sqlite_where=_OPEN)

# The primary key makes a second result impossible. `attempt_id` has no foreign key: it would cost an index
# on the hot path, and the attempt of a result is never pruned. `reused_from` is the job that asked first;
# `digest` tells the very weights that answered, where the server does.
results = _table(
    "results",
    _to("prompts", "prompt_id", key=True),
    _int("attempt_id", null=True),
    _int("reused_from", null=True),
    _to("workers", "worker_id", null=True),
    _int("sent_tokens", null=True),
    _int("prompt_tokens", null=True),
    _int("cached_tokens", null=True),
    _int("completion_tokens", null=True),
    _int("parts"),
    _real("seconds"),
    _real("finished_at"),
    _text("finish_reason"),
    _text("proof"),
    _text("model"),
    _text("data", null=True),
    _text("thinking", null=True),
    _text("answer"),
    _text("digest", null=True),
    CheckConstraint("proof IN ('proven', 'unproven')", name="proof"),
)

# `busy_seconds` counts the time with at least one request in flight. `slots` are those that the server tells, `seats`
# what was found to be of use where it tells none. On PostgreSQL a worker is one coordinator's at a time,
# that of `coordinator_id`.
workers = _table(
    "workers",
    _id(),
    _text("identity", unique=True),
    _text("name"),
    _text("type"),
    _int("healthy", zero=True),
    _int("slots", null=True),
    _int("requests", zero=True),
    _int("succeeded", zero=True),
    _int("failed", zero=True),
    _int("completion_tokens", zero=True),
    _real("seconds", zero=True),
    _real("min_seconds", null=True),
    _real("max_seconds", null=True),
    _real("busy_seconds", zero=True),
    _real("last_seen_at", null=True),
    Column("breaker", Text, nullable=False, server_default=text("'closed'")),
    _text("error", null=True),
    _int("seats", null=True),
    _int("coordinator_id", null=True),
)

# Rates are tokens a second, learnt from what the server reports; so is how long the model took to load.
worker_models = _table(
    "worker_models",
    _to("workers", "worker_id", key=True),
    Column("model", Text, primary_key=True),
    _int("context_length", null=True),
    _int("loaded", null=True),
    _real("prefill_rate", null=True),
    _real("decode_rate", null=True),
    _real("seen_at"),
    _text("digest", null=True),
    _real("load_seconds", null=True),
)

# What so many counts of a model's prompts have taught of its tokenizer (see `domain.factors`), by the name that it
# answers with.
model_tokens = _table(
    "model_tokens",
    Column("model", Text, primary_key=True),
    _int("counts"),
    _real("learnt_at"),
    _text("factors"),
)

worker_metrics = _table(
    "worker_metrics",
    _id(),
    _to("workers", "worker_id"),
    _real("at"),
    _int("healthy"),
    _int("in_flight"),
    _int("requests"),
    _int("succeeded"),
    _int("failed"),
    _int("completion_tokens"),
    _real("seconds"),
    Index(None, "worker_id", "at"),
)

# What a job's progress is read from: kept in the transaction that moves a prompt, summed over coordinators
# on reading. `part` is 0 for whole answers and 1 for the parts of long papers.
job_counters = _table(
    "job_counters",
    _to("jobs", "job_id", key=True),
    Column("coordinator_id", _INT, primary_key=True),
    Column("part", _INT, primary_key=True),
    *(_int(state, zero=True) for state in PromptState),
    _int("prompt_tokens", zero=True),
    _int("cached_tokens", zero=True),
    _int("completion_tokens", zero=True),
    _int("truncated", zero=True),
    _int("unproven", zero=True),
    _int("reused", zero=True),
)

# What reading costs a job, in tokens, kept like its counters; but a recount could not find it, since attempts are
# pruned. What was to be asked when it was built, by estimate: `asked` prompts about `readings`. `begun_tokens` are
# of the readings that an answer has been given about. What servers told: tokens `read` anew and `found` cached by
# all attempts, the `least` that the answers could have been given for, and the answers of which none was told.
job_tokens = _table(
    "job_tokens",
    _to("jobs", "job_id", key=True),
    Column("coordinator_id", _INT, primary_key=True),
    *(_int(name, zero=True) for name in ("asked", "readings", "reading_tokens", "question_tokens", "begun_tokens")),
    *(_int(name, zero=True) for name in ("read_tokens", "found_tokens", "least_tokens", "untold")),
)

# The readings that a job has been given an answer about, so that each is counted once for it.
job_readings = _table(
    "job_readings",
    _to("jobs", "job_id", key=True),
    _to("readings", "reading_id", key=True),
)
Index("ix_job_readings_reading", job_readings.c.reading_id).ddl_if(dialect="postgresql")

# What programs that speak OpenAI's API send and are given, by its own names. A file has no `bytes` until its chunks
# are all written.
files = _table(
    "files",
    _id(),
    _text("key", unique=True),
    _text("filename"),
    _text("purpose"),
    _int("bytes", null=True),
    _real("created_at"),
    _real("expires_at", null=True),
)

file_chunks = _table(
    "file_chunks",
    _to("files", "file_id", key=True),
    Column("ordinal", _INT, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

# Batches of that API. What a batch asks is a job, and until `ended_at` how far it is, that job knows; `status` is then
# its last one. It is `total` lines, known once all are looked through, of which `refused` cannot be asked. Files are
# named by their keys, since they may be deleted before.
batches = _table(
    "batches",
    _id(),
    _text("key", unique=True),
    _to("jobs", "job_id", null=True),
    _text("endpoint"),
    _text("input_file"),
    _text("metadata", null=True),
    _text("model", null=True),
    _real("output_seconds", null=True),
    _int("total", zero=True),
    _int("refused", zero=True),
    _int("completed", null=True),
    _int("failed", null=True),
    _real("created_at"),
    _real("expires_at"),
    _real("in_progress_at", null=True),
    _real("finalizing_at", null=True),
    _real("cancelling_at", null=True),
    _real("ended_at", null=True),
    _text("status", null=True),
    _text("output_file", null=True),
    _text("error_file", null=True),
    _text("errors", null=True),
    _text("usage", null=True),
    CheckConstraint("(ended_at IS NULL) = (status IS NULL)", name="ended"),
)
Index("ix_batches_job", batches.c.job_id)
_UNENDED = text("ended_at IS NULL")
Index("ix_batches_unended", batches.c.id, sqlite_where=_UNENDED)

# A line of a batch's input: the prompt that it became, or the error it is answered with.
batch_lines = _table(
    "batch_lines",
    _to("batches", "batch_id", key=True),
    Column("ordinal", _INT, primary_key=True),
    _to("prompts", "prompt_id", null=True),
    _text("custom_id"),
    _text("error", null=True),
    CheckConstraint("prompt_id IS NULL OR error IS NULL", name="answer"),
)
Index("ix_batch_lines_prompt", batch_lines.c.prompt_id, sqlite_where=text("prompt_id IS NOT NULL"))
