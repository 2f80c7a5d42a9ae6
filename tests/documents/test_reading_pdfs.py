"""PDFs, as they are drawn by TeX, by Word and by layout programs."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from distllm.documents import DocumentReader
from distllm.domain.models import Document
from tests.documents.pdf_writer import Words, column, write_pdf, write_raw_pdf

Read = Callable[[bytes], Awaitable[Document]]

LEFT = ["The left column is read first, line", "by line, and a sentence which began", "there goes on in the"]
RIGHT = ["right column, at whose top it has", "its end. Then comes a sentence that", "is the last on this page."]
COLUMNS = (
    "The left column is read first, line by line, and a sentence which began there goes on in the "
    "right column, at whose top it has its end. Then comes a sentence that is the last on this page."
)
FILLER = [f"Words to fill the page are here, the line {letter} of them," for letter in "abcdef"]


@pytest.fixture
def read(reader: DocumentReader, save: Callable[[str, bytes], Path]) -> Read:
    """Read the bytes of a PDF in a child."""

    async def read_bytes(data: bytes) -> Document:
        return await reader.read(save("paper.pdf", data))

    return read_bytes


async def text_of(read: Read, *pages: list[Words]) -> str:
    document = await read(write_pdf(pages))
    assert document.problem is None
    assert document.pages == len(pages)
    return document.text


async def test_columns_drawn_in_order_are_read_in_order(read: Read) -> None:
    assert await text_of(read, column(50, 700, LEFT) + column(320, 700, RIGHT)) == COLUMNS


async def test_columns_drawn_out_of_order_are_read_in_order_too(read: Read) -> None:
    title = [Words(50, 760, "A title that stands over both of the columns of this page", 16)]
    drawn = column(320, 700, RIGHT) + title + column(50, 700, LEFT)
    assert (await text_of(read, drawn)).endswith("columns of this page\n\n" + COLUMNS)


async def test_lines_drawn_from_the_foot_of_the_page_up_are_put_in_order(read: Read) -> None:
    words = [*FILLER, "and this is the end of it all."]
    lines = column(50, 700, words, pitch=60)
    assert (await text_of(read, lines[::-1])).split("\n\n") == words


async def test_a_sentence_goes_on_over_the_page_and_the_footnote_comes_after_it(read: Read) -> None:
    note = [Words(50, 60, "1 A footnote in small type.", 7)]
    text = await text_of(read, column(50, 700, LEFT) + note, column(50, 700, RIGHT))
    assert text == COLUMNS + "\n\n1 A footnote in small type."


async def test_a_page_number_beside_the_columns_hides_no_gutter(read: Read) -> None:
    title = [Words(50, 760, "A title that stands over both of the columns of this page", 16)]
    drawn = [Words(575, 676, "19"), *column(240, 700, RIGHT), *column(50, 700, LEFT), *title]
    assert COLUMNS in await text_of(read, drawn)


async def test_figures_side_by_side_do_not_part_the_columns_above_them_from_those_below(read: Read) -> None:
    def text(x: float, letters: str) -> list[Words]:
        lines = [f"the line {letter} of its column" for letter in letters]
        return column(x, 700, lines[:6]) + column(x, 200, lines[6:])

    head = [Words(50, 780, "A head that stands over both of the columns of it", 16)]
    words = (await text_of(read, text(320, "mnopqrstuvwx") + text(50, "abcdefghijkl") + head)).split()
    assert "".join(word for word in words if len(word) == 1 and word != "A") == "abcdefghijklmnopqrstuvwx"


async def test_indents_and_gaps_begin_paragraphs(read: Read) -> None:
    block = [
        "First it was said that a line is no",
        "paragraph, since it ends anywhere.",
        "Then it went on as it had been, and so",
    ]
    indented = [
        Words(62 if number in (0, 2) else 50, 700 - 12 * number, line)
        for number, line in enumerate([*block, "on and on as far as it could."])
    ]
    later = column(50, 620, block[:2])
    assert (await text_of(read, indented + later)).split("\n\n") == [
        "First it was said that a line is no paragraph, since it ends anywhere.",
        "Then it went on as it had been, and so on and on as far as it could.",
        "First it was said that a line is no paragraph, since it ends anywhere.",
    ]


async def test_split_words_are_joined_as_the_document_writes_them(read: Read) -> None:
    lines = [
        "The word read-write is written so here, and read-write again, but the infor-",
        "mation is one word, and at the end of this line that stands here is read-",
        "write, which keeps its hyphen.",
    ]
    text = await text_of(read, column(50, 700, lines))
    assert "the information is one word" in text
    assert "stands here is read-write, which" in text


async def test_a_compound_keeps_its_hyphen_where_a_line_ends(read: Read) -> None:
    lines = [
        "A frequency has a domain, and this domain a frequency, so in the frequency-",
        "domain it is an order of size, and for an order-of-",
        "magnitude estimate it is easy to see that char-",
        "acters are no compound of char-",
        "acters.",
    ]
    text = await text_of(read, column(50, 700, lines))
    assert "in the frequency-domain it is" in text
    assert "an order-of-magnitude estimate" in text
    assert "that characters are no compound of characters." in text


async def test_the_second_line_of_an_entry_that_hangs_belongs_to_it(read: Read) -> None:
    entries = [
        ("Aname, A. (1999) Of the many things that can be said about the", "subject of this. Journal of Tests."),
        ("Bname, B. (2001) What else there was that could be said about it", "and of others. Journal of Tests."),
    ]
    lines = [
        Words(50 + 12 * turn, 700 - 12 * (2 * number + turn), line)
        for number, entry in enumerate(entries)
        for turn, line in enumerate(entry)
    ]
    assert (await text_of(read, lines)).split("\n\n") == [" ".join(entry) for entry in entries]


async def test_words_that_only_white_parts_are_parted(read: Read) -> None:
    # As troff sets them: with white by the spacing of two letters, and a space that the next letter stands upon.
    shown = b"(so that others can enjo) Tj 3.6 Tc (y) Tj 0 Tc (the early) Tj [( Dev ) 290 (elopment of it)] TJ"
    text = (await read(write_raw_pdf(b"BT /F1 10 Tf 50 700 Td " + shown + b" ET"))).text
    assert text == "so that others can enjoy the early Development of it"


async def test_letters_that_come_as_dingbats_are_read(read: Read) -> None:
    names = b" ".join(b"%d /a%d" % (code, code) for code in b"abcdefghilmnopqrstuvwyT,.")
    line = b"(The penalized is read as a sum of squares, which all of them were.) Tj"
    document = await read(write_raw_pdf(b"BT /F1 10 Tf 50 700 Td " + line + b" ET", names))
    assert document.text == "The penalized is read as a sum of squares, which all of them were."


async def test_running_heads_are_kept_once_and_page_numbers_never(read: Read) -> None:
    pages = [
        [
            Words(50, 800, f"Journal of Tests, page {number}"),
            *column(50, 700 - 9 * number, FILLER),
            Words(290, 30, f"{number}"),
        ]
        for number in range(1, 5)
    ]
    text = await text_of(read, *pages)
    assert text.count("Journal of Tests") == 1
    assert text.startswith("Journal of Tests, page 1\n\nWords to fill")
    assert text.endswith("the line f of them,")
    assert text.count("the line f of them,") == 4
    assert not any(text.count(f" {number} ") for number in range(2, 5))


async def test_a_section_named_before_the_running_head_is_no_text_either(read: Read) -> None:
    names = ["", "METHODS ", "RESULTS ", "SUMMARY "]
    pages = [
        [Words(200, 800, f"{name}THE PAPER OF TESTS"), *column(50, 700 - 9 * number, FILLER)]
        for number, name in enumerate(names)
    ]
    text = await text_of(read, *pages)
    assert text.count("the line f of them, Words to fill the page are here, the line a of them,") == 3
    assert text.count("THE PAPER OF TESTS") == 4


async def test_rows_of_a_table_stay_rows(read: Read) -> None:
    rows = ["alpha 1.25 17 0.5%", "beta 2.50 18 0.7%", "gamma 3.75 19 0.9%"]
    text = await text_of(read, column(50, 700, [*FILLER, "and with that it ended."]) + column(50, 560, rows))
    assert text.endswith("\n\n" + "\n".join(rows))


async def test_ligatures_are_written_as_letters(read: Read) -> None:
    # The codes of TeX's own encoding come through where a font has no map to Unicode.
    lines = ["The e\x1bect of the \x1crst \x1dight, in an o\x1ece, was su\x1bering and more words."]
    assert await text_of(read, column(50, 700, lines)) == (
        "The effect of the first flight, in an office, was suffering and more words."
    )


@pytest.mark.parametrize(
    ("stated", "title"),
    [
        ("What the Paper States of Itself", "What the Paper States of Itself"),
        ("Paper Title (use style: paper title)", "The Title in Large Type on Two Lines of It"),
        ("main.dvi", "The Title in Large Type on Two Lines of It"),
        (None, "The Title in Large Type on Two Lines of It"),
    ],
)
async def test_the_title_is_the_stated_one_unless_it_is_junk(read: Read, stated: str | None, title: str) -> None:
    shown = column(50, 780, ["The Title in Large Type", "on Two Lines of It"], size=18, pitch=22)
    document = await read(write_pdf([shown + column(50, 700, FILLER)], title=stated))
    assert document.title == title


async def test_a_paper_all_in_one_size_has_no_title_of_its_own(read: Read) -> None:
    assert (await read(write_pdf([column(50, 700, FILLER)]))).title is None


async def test_a_locked_file_says_so(read: Read) -> None:
    document = await read(write_pdf([column(50, 700, FILLER)], locked=True))
    assert document.problem == "is protected by a password"


async def test_a_scan_is_refused_with_what_to_do(read: Read) -> None:
    document = await read(write_pdf([[]] * 12))
    assert document.problem == ("has no text on its 12 pages: it is probably a scan; run it through OCR first")
    assert (document.pages, document.text) == (12, "")
    one = await read(write_pdf([[Words(50, 700, "Downloaded today")]]))
    assert one.problem is not None
    assert one.problem.startswith("has hardly any text on its 1 page:")


async def test_a_page_that_is_lost_costs_only_itself(read: Read) -> None:
    document = await read(write_pdf([column(50, 700, LEFT)], lost_pages=2))
    assert document.problem is None
    assert document.text.startswith("The left column")
    assert document.text.endswith(
        "\n\n[Of the file's 3 pages, 2, 3 could not be opened: what stands there is missing here.]"
    )
    lost = await read(write_pdf([], lost_pages=2))
    assert lost.problem == "is not a PDF, or is damaged: none of its pages can be opened"


async def test_a_file_that_is_cut_off_never_harms_the_next(read: Read) -> None:
    whole = write_pdf([column(50, 700, LEFT), column(50, 700, RIGHT)])
    for share in (0.02, 0.3, 0.6, 0.9):
        cut = await read(whole[: int(len(whole) * share)])
        assert cut.text or cut.problem
    assert (await read(whole)).text == COLUMNS
