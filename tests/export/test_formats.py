"""Every format says the same of a job: what was answered, by whom, and what was not."""

import csv
import io
import json
from pathlib import Path

import pytest

from distllm.domain.errors import UsageError
from distllm.domain.models import ErrorClass
from distllm.export.csv import unguarded
from distllm.export.formats import Format, format_of
from distllm.export.source import Source
from distllm.store.exports import ANSWER_COLUMNS
from tests.export.export_kit import answer, exported
from tests.store.store_kit import Store, add_job, paper

LISTED = '- 12 rooms\n- 3 panels, "felt"\n'


@pytest.fixture
def job(store: Store) -> int:
    """Two papers, one of them twice, one that cannot be read; one answer cut, one prompt failed, one in flight."""
    job_id = add_job(store, ["one", "two", "one", paper("", data=b"scan", problem="no text")], ["findings", "limits"])
    answer(
        store,
        {
            ("0.txt", "findings"): LISTED,
            ("0.txt", "limits"): ErrorClass.INPUT,
            ("1.txt", "limits"): "Few rooms.",
        },
        cut=["Few rooms."],
    )
    return job_id


def rows_of(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


async def test_the_long_form_is_the_view_of_answers(store: Store, job: int) -> None:
    found = store.rows("SELECT * FROM answers WHERE job_id = ? ORDER BY document, prompt", job)
    names = store.columns("answers")
    view = [dict(zip(names, row, strict=True)) for row in found]
    assert tuple(names) == ANSWER_COLUMNS
    assert len(view) == 2
    lines = (await exported(store.place, job, Format.JSONL)).decode().splitlines()
    assert [json.loads(line) for line in lines] == view
    rows = rows_of(await exported(store.place, job, Format.CSV))
    assert [row | {"answer": unguarded(row["answer"])} for row in rows] == [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in view
    ]


async def test_the_wide_form_has_a_row_for_every_file_and_says_what_is_missing(store: Store, job: int) -> None:
    lines = (await exported(store.place, job, Format.JSONL, wide=True)).decode().splitlines()
    first, second, copy, scan = [json.loads(line) for line in lines]
    assert list(first) == ["document", "title", "pages", "findings", "limits", "note"]
    assert first == {
        "document": "0.txt",
        "title": "A title",
        "pages": None,
        "findings": LISTED,
        "limits": None,
        "note": "limits: failed: input, says the server",
    }
    assert (second["findings"], second["limits"]) == (None, "Few rooms.")
    assert second["note"] == "findings: not answered yet; limits: cut at its token limit"
    assert (copy["document"], copy["note"]) == ("2.txt", "same content as 0.txt")
    assert (scan["document"], scan["note"]) == ("3.txt", "not read: no text")
    rows = rows_of(await exported(store.place, job, Format.CSV, wide=True))
    assert [row["document"] for row in rows] == ["0.txt", "1.txt", "2.txt", "3.txt"]
    assert rows[0]["findings"] == f"'{LISTED}"
    assert rows[0]["limits"] == ""


async def test_a_csv_is_what_a_spreadsheet_expects(store: Store, job: int) -> None:
    data = await exported(store.place, job, Format.CSV)
    assert data.startswith(b"\xef\xbb\xbfjob_id,job,document,")
    text = data.decode("utf-8-sig")
    assert text.split("\r\n")[0].split(",") == list(ANSWER_COLUMNS)
    assert text.count("\r\n") == 3
    assert '"\'- 12 rooms\n- 3 panels, ""felt""\n"' in text


async def test_a_report_tells_everything_and_where_it_comes_from(store: Store, job: int) -> None:
    for form in (Format.MARKDOWN, Format.HTML):
        text = (await exported(store.place, job, form)).decode()
        assert "What are its limits?" in text
        for fact in ("llama-8b", "on studio", "1 attempt", "3.0 s", "500 tokens read, 400 of them cached, 7 written"):
            assert fact in text, (form, fact)
        for fact in (
            "proven",
            "2027-01-15T08:00:03Z",
            "ut at its token limit",
            "not answered yet",
            "same content as 0.txt",
        ):
            assert fact in text, (form, fact)
        end = text[text.index("Failed</h2>") if form is Format.HTML else text.index("## Failed") :]
        assert "input, says the server" in end
        assert "0.txt" in end
        assert "studio" in end
        assert "no text" in end
        wide = (await exported(store.place, job, form, wide=True)).decode()
        assert "limits: failed: input, says the server" in wide
        assert "3 panels" in wide


async def test_data_is_json_where_a_schema_was_asked_for(store: Store, job: int) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    for data, expected in (
        ('{"rooms": 12}', {"rooms": 12}),
        ('"half \\ud800"', "half \ud800"),
        ("1e999", "1e999"),
        ("NaN", "NaN"),
        (deep, deep),
        ("no JSON", "no JSON"),
    ):
        store.rows("UPDATE results SET data = ? WHERE finish_reason = 'stop'", data)
        long = (await exported(store.place, job, Format.JSONL)).decode().splitlines()
        assert json.loads(long[0], parse_constant=pytest.fail)["data"] == expected
        wide = (await exported(store.place, job, Format.JSONL, wide=True)).decode().splitlines()
        assert json.loads(wide[0])["findings"] == expected


async def test_questions_that_are_called_like_other_columns_have_columns_of_their_own(store: Store) -> None:
    job_id = add_job(store, ["one"], ["title", "note", "title_answer"])
    answer(store, {("0.txt", "title"): "a", ("0.txt", "note"): "b", ("0.txt", "title_answer"): "c"})
    row = json.loads(await exported(store.place, job_id, Format.JSONL, wide=True))
    assert row == {
        "document": "0.txt",
        "title": "A title",
        "pages": None,
        "title_answer_answer": "a",
        "note_answer": "b",
        "title_answer": "c",
        "note": None,
    }


async def test_prompts_about_no_document_are_written_with_what_they_asked(store: Store) -> None:
    job_id = add_job(store, ["one"], ["findings"])
    answer(store, {("0.txt", "findings"): "Forty-two."})
    store.rows(
        "UPDATE prompts SET document_id = NULL, template_id = NULL, body = ?",
        json.dumps({"messages": [{"role": "user", "content": "What is the answer?"}]}),
    )
    store.rows("DELETE FROM job_documents")
    store.rows("DELETE FROM templates")
    [line] = (await exported(store.place, job_id, Format.JSONL)).decode().splitlines()
    row = json.loads(line)
    assert (row["document"], row["prompt"], row["answer"]) == (None, None, "Forty-two.")
    for form in (Format.MARKDOWN, Format.HTML):
        text = (await exported(store.place, job_id, form)).decode()
        assert text.index("Prompt 1") < text.index("What is the answer?") < text.index("Forty-two.")
    with pytest.raises(UsageError, match="leave --wide out"):
        await exported(store.place, job_id, Format.CSV, wide=True)


async def test_what_is_missing_is_counted_while_it_is_written(store: Store, job: int) -> None:
    sources: list[Source] = []
    await exported(store.place, job, Format.JSONL, keep=sources.append)
    assert sources[0].states == {"done": 2, "failed": 1, "leased": 1}


async def test_a_cell_that_excel_would_cut_is_counted(store: Store) -> None:
    job_id = add_job(store, ["one"], ["a", "b", "c"])
    answer(store, {("0.txt", "a"): "x" * 32_767, ("0.txt", "b"): "x" * 32_768, ("0.txt", "c"): "\U0001f600" * 16_384})
    for wide in (False, True):
        sources: list[Source] = []
        await exported(store.place, job_id, Format.CSV, wide=wide, keep=sources.append)
        assert sources[0].too_long_for_excel == 2


async def test_a_job_that_is_not_there(path: Path) -> None:
    with pytest.raises(UsageError, match="there is no job 7: `distllm status` lists them"):
        await exported(path, 7, Format.JSONL)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.JSONL", Format.JSONL),
        ("a.csv", Format.CSV),
        ("a.md", Format.MARKDOWN),
        ("a.htm", Format.HTML),
        ("a.parquet", Format.PARQUET),
        ("a.xlsx", None),
        ("csv", None),
    ],
)
def test_a_files_name_says_its_format(name: str, form: Format | None) -> None:
    assert format_of(Path(name)) is form
