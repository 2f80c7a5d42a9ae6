"""Jobs being built: each step is one short transaction that can be repeated, so that any process can go on."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, exists, func, insert, literal_column, select, update
from sqlalchemy.dialects.sqlite import insert as upsert_into

from distllm.domain.errors import DistllmError
from distllm.domain.models import Document, Template
from distllm.store.costs import count_asked, count_parts
from distllm.store.parts import end_of_chunk, mark_copies
from distllm.store.readings import NewPart, NewReading, save_reading
from distllm.store.reuse import reuse, reuse_parts
from distllm.store.sql import COUNT, DONE, NOTHING_COUNTED, insert_row
from distllm.store.tables import documents, job_counters, job_documents, jobs, prompts, readings, templates
from distllm.store.trees import build_trees
from distllm.store.tx import Tx

CHUNK_DOCUMENTS = 500
"""How many documents get their prompts in one transaction."""


@dataclass(frozen=True, slots=True)
class NewQuestion:
    """A template with its answer's token limit settled.

    `tokens` are the estimate of its own, `merge_tokens` of what puts together answers to it.
    """

    template: Template
    max_tokens: int
    tokens: int
    merge_tokens: int


class KeyTakenError(DistllmError):
    """A key came again with another request than before."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is known of a job before any file has been read.

    `files` are (name, path, mtime). `request_hash` tells the same request made again. A `fresh` job reuses
    no answer. Without `references`, those of documents that are split are not read. `key` is what the same request
    bears whenever it is made again, if it bears one.
    """

    name: str
    preset: str | None
    model: str
    params: Mapping[str, Any]
    priority: int
    request_hash: str
    questions: Sequence[NewQuestion]
    files: Sequence[tuple[str, str, float]]
    fresh: bool = False
    references: bool = True
    key: str | None = None

    @property
    def asked(self) -> Sequence[tuple[int, int]]:
        """The tokens of each question, and the most of its answer."""
        return [(each.tokens, each.max_tokens) for each in self.questions]

    @property
    def merged(self) -> Sequence[tuple[int, int]]:
        """The same of what puts together answers to it."""
        return [(each.merge_tokens, each.max_tokens) for each in self.questions]


# A submit that was killed or interrupted left a job without an end: the same request goes on with it.
_UNFINISHED = (
    select(jobs.c.id)
    .where(
        jobs.c.request_hash == bindparam("hash"),
        jobs.c.finished_at.is_(None),
        jobs.c.cancel_requested_at.is_(None),
    )
    .order_by(jobs.c.id)
    .limit(1)
)

# Whatever has become of the job that a key made, the same key makes no other.
_OF_KEY = select(jobs.c.id, jobs.c.request_hash).where(jobs.c.submit_key == bindparam("key"))

_NEW_JOB = insert_row(
    jobs,
    *("name", "submit_key", "preset", "model", "params", "priority", "request_hash", "created_at", "fresh"),
    *("with_references", "host"),
).returning(jobs.c.id)
_NEW_TEMPLATE = insert_row(
    templates, "job_id", "ordinal", "name", "text", "max_tokens", "tokens", "merge", "merge_tokens"
)
_NEW_FILE = insert_row(job_documents, "job_id", "ordinal", "name", "path", "mtime")


def known_job(tx: Tx, job: NewJob) -> int | None:
    """The job that the same request has begun, and that has not ended; with a key, the one that the key has made.

    Raises KeyTakenError where another request bore the key.
    """
    if job.key is None:
        job_id: int | None = tx.value(_UNFINISHED, {"hash": job.request_hash})
        return job_id
    for job_id, request_hash in tx.rows(_OF_KEY, {"key": job.key}):
        if request_hash != job.request_hash:
            raise KeyTakenError(f"another request was made with this key, which is job {job_id}: give each its own")
        return job_id
    return None


def create_job(tx: Tx, job: NewJob, now: float) -> int:
    """Store a job with its questions and the list of its files; return its id.

    The id of the job is returned that the same request has made already, if that is known (see `known_job`).
    """
    # The same request may be made twice at the same time.
    tx.alone(f"request {job.key or job.request_hash}")
    known = known_job(tx, job)
    if known is not None:
        return known
    job_id: int = tx.value(
        _NEW_JOB,
        {
            "name": job.name,
            "submit_key": job.key,
            "preset": job.preset,
            "model": job.model,
            "params": json.dumps(job.params, sort_keys=True),
            "priority": job.priority,
            "request_hash": job.request_hash,
            "created_at": now,
            "fresh": int(job.fresh),
            "with_references": int(job.references),
            "host": tx.host,
        },
    )
    tx.many(
        _NEW_TEMPLATE,
        (
            {
                "job_id": job_id,
                "ordinal": ordinal,
                "name": each.template.name,
                "text": each.template.text,
                "max_tokens": each.max_tokens,
                "tokens": each.tokens,
                "merge": each.template.merge,
                "merge_tokens": each.merge_tokens,
            }
            for ordinal, each in enumerate(job.questions)
        ),
    )
    tx.many(
        _NEW_FILE,
        (
            {"job_id": job_id, "ordinal": ordinal, "name": name, "path": path, "mtime": mtime}
            for ordinal, (name, path, mtime) in enumerate(job.files)
        ),
    )
    return job_id


# What a killed submit still has to read, or a new one all of it.
_UNREAD = (
    select(job_documents.c.ordinal, job_documents.c.path)
    .where(job_documents.c.job_id == bindparam("job"), job_documents.c.document_id.is_(None))
    .order_by(job_documents.c.ordinal)
)


def unread_files(tx: Tx, job_id: int) -> list[tuple[int, str]]:
    """The files of a job that have not been read, as (ordinal, path)."""
    return [(ordinal, path) for ordinal, path in tx.rows(_UNREAD, {"job": job_id})]


# The same bytes are one document; one that could not be read before is given its text now.
_DOCUMENT = ("sha256", "title", "pages", "characters", "problem", "created_at", "text")
_new = upsert_into(documents).values({name: bindparam(name) for name in _DOCUMENT})
_SAVE_DOCUMENT = _new.on_conflict_do_update(
    index_elements=[documents.c.sha256],
    set_={name: _new.excluded[name] for name in ("title", "pages", "characters", "problem", "text")},
    where=documents.c.problem.is_not(None),
)
# What could not be opened has no hash, and is a document of its own.
_ADD_DOCUMENT = insert_row(documents, *_DOCUMENT).returning(documents.c.id)
_STORED = select(documents.c.id, documents.c.text, documents.c.problem)
_BY_HASH = _STORED.where(documents.c.sha256 == bindparam("sha"))
_BY_ID = _STORED.where(documents.c.id == bindparam("document"))

_MODEL = select(jobs.c.model).where(jobs.c.id == bindparam("job"))

_LINK = (
    update(job_documents)
    .where(job_documents.c.job_id == bindparam("job"), job_documents.c.ordinal == bindparam("place"))
    .values(document_id=bindparam("document"), reading_id=bindparam("reading"))
)


def save_document(
    tx: Tx, job_id: int, ordinal: int, document: Document, read_as: Callable[[str], NewReading], now: float
) -> None:
    """Store what was read from a file of a job.

    A text that is stored already for the same bytes stays as it is, and is what this job asks about too;
    `read_as` makes a reading of it.
    """
    row = {
        "sha256": document.sha256,
        "title": document.title,
        "pages": document.pages,
        "characters": len(document.text),
        "problem": document.problem,
        "created_at": now,
        "text": document.text,
    }
    if document.sha256 is None:
        stored = tx.rows(_BY_ID, {"document": tx.value(_ADD_DOCUMENT, row)})
    else:
        tx.run(_SAVE_DOCUMENT, row)
        stored = tx.rows(_BY_HASH, {"sha": document.sha256})
    document_id, text, problem = stored[0]
    reading_id = None
    if problem is None:
        whole = NewPart(0, len(text), read_as(text))
        reading_id = save_reading(tx, tx.value(_MODEL, {"job": job_id}), document_id, whole)
    tx.run(_LINK, {"job": job_id, "place": ordinal, "document": document_id, "reading": reading_id})


_PROGRESS = select(jobs.c.built, jobs.c.submitted_at, jobs.c.fresh).where(jobs.c.id == bindparam("job"))

# Documents x questions, without a row of it passing through Python.
_BUILD = insert(prompts).from_select(
    ["job_id", "document_id", "reading_id", "template_id", "tokens"],
    select(
        job_documents.c.job_id,
        job_documents.c.document_id,
        job_documents.c.reading_id,
        templates.c.id,
        readings.c.tokens + templates.c.tokens + templates.c.max_tokens,
    )
    .join_from(job_documents, readings, readings.c.id == job_documents.c.reading_id)
    .join(templates, templates.c.job_id == job_documents.c.job_id)
    .where(
        job_documents.c.job_id == bindparam("job"),
        job_documents.c.ordinal >= bindparam("first_place"),
        job_documents.c.ordinal < bindparam("end_place"),
        job_documents.c.copy == 0,
    )
    .order_by(job_documents.c.ordinal, templates.c.ordinal),
)

# Papers that nobody has asked about, as most are when they come, need no look at each of their prompts.
_theirs = prompts.alias("theirs")
_ANY_ANSWER = select(
    exists().where(
        job_documents.c.job_id == bindparam("job"),
        job_documents.c.ordinal >= bindparam("first_place"),
        job_documents.c.ordinal < bindparam("end_place"),
        exists().where(_theirs.c.reading_id == job_documents.c.reading_id, _theirs.c.state == DONE),
    )
)

LAST_PROMPT = select(func.coalesce(func.max(prompts.c.id), literal_column("0")))
_ADVANCE = update(jobs).where(jobs.c.id == bindparam("job")).values(built=bindparam("end_place"))
_FILES = select(func.count()).select_from(job_documents).where(job_documents.c.job_id == bindparam("job"))
_SUBMIT = update(jobs).where(jobs.c.id == bindparam("job")).values(submitted_at=bindparam("now"))

# A job ends with its last prompt: at once, if there is none to ask.
_IS_ENDING = (
    jobs.c.id == bindparam("job"),
    jobs.c.finished_at.is_(None),
    jobs.c.submitted_at.is_not(None),
    select(func.coalesce(func.sum(job_counters.c.pending + job_counters.c.leased), literal_column("0")))
    .where(job_counters.c.job_id == bindparam("job"))
    .scalar_subquery()
    == literal_column("0"),
)
_ENDING = select(jobs.c.id).where(*_IS_ENDING).with_for_update(key_share=True)
_FINISH = update(jobs).where(*_IS_ENDING).values(finished_at=bindparam("now"))


def finish_jobs(tx: Tx, job_ids: Iterable[int], now: float) -> int:
    """End those of some jobs that have nothing left to ask; return how many."""
    ended = 0
    for job_id in job_ids:
        values = {"job": job_id, "now": now}
        # Whoever retries has the job to itself: what it counts is seen only once that has been waited for.
        if tx.value(_ENDING, values) is not None:
            ended += tx.run(_FINISH, values)
    return ended


def build_prompts(tx: Tx, job_id: int, now: float, digests: Iterable[str] = ()) -> bool:
    """Write the prompts of the next documents of a job whose files are all read; true when it is whole.

    What is answered already is not asked again (see `reuse` for `digests`), unless the job is fresh: whole answers
    first, then those about parts of documents that are split. The last step sets `submitted_at`: from then on its
    prompts can be leased.
    """
    # Whoever goes on with a submit that seems to have been cut short may not be the only one.
    tx.alone(f"prompts of job {job_id}")
    built, submitted_at, fresh = tx.rows(_PROGRESS, {"job": job_id})[0]
    if submitted_at is not None:
        return True
    if built == 0:
        mark_copies(tx, job_id)
    end = end_of_chunk(tx, job_id, built, built + CHUNK_DOCUMENTS)
    last = tx.value(LAST_PROMPT, {})
    chunk = {"job": job_id, "first_place": built, "end_place": end}
    count = tx.run(_BUILD, chunk)
    anew = fresh or not tx.value(_ANY_ANSWER, chunk)
    reused, unproven = (0, 0) if anew else reuse(tx, job_id, last, digests, now)
    _count(tx, job_id, 0, count, reused, unproven)
    waiting, added = build_trees(tx, job_id, built, end)
    count_asked(tx, job_id, built, end, count - reused - waiting)
    if added:
        reused, unproven = (0, 0) if fresh else reuse_parts(tx, job_id, last, digests, now)
        _count(tx, job_id, 1, added, reused, unproven)
        count_parts(tx, job_id, last)
    tx.run(_ADVANCE, {"job": job_id, "end_place": end})
    if end < tx.value(_FILES, {"job": job_id}):
        return False
    tx.run(_SUBMIT, {"job": job_id, "now": now})
    finish_jobs(tx, [job_id], now)
    tx.announce()
    return True


def _count(tx: Tx, job_id: int, part: int, new: int, reused: int, unproven: int) -> None:
    counts = {"pending": new - reused, "done": reused, "reused": reused, "unproven": unproven}
    tx.run(COUNT, NOTHING_COUNTED | {"job_id": job_id, "coordinator_id": tx.counters, "part": part} | counts)


# Jobs whose submit was killed before it was whole. A batch can only be gone on with by who has its prompts, and
# another one where its files are.
_BUILDING = (
    select(jobs.c.id)
    .where(
        jobs.c.submitted_at.is_(None),
        jobs.c.host == bindparam("host"),
        exists().where(job_documents.c.job_id == jobs.c.id),
    )
    .order_by(jobs.c.id)
)


def unfinished_builds(tx: Tx) -> list[int]:
    """The ids of jobs of this machine that are still being built, or were when their process died."""
    return [job_id for (job_id,) in tx.rows(_BUILDING, {"host": tx.host})]
