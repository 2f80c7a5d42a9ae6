"""Web pages."""

from collections.abc import Callable
from pathlib import Path

import pytest

from distllm.documents import DocumentReader
from distllm.documents.html import extract_html

Save = Callable[[str, bytes], Path]

PAGE = """<!DOCTYPE html><html><head><title> Trees  and heat </title><style>p {color: red}</style></head><body>
<nav><a href="/">Home</a></nav>
<h1>Trees <em>cool</em> streets</h1><div>They cool by 10<sup>-1</sup>
  to <b>2</b>&nbsp;K<br>at noon.<p>A list:<ul><li>one<li>two<ol><li>a</li><li><p>b</p></li></ol></ul>After it.
<table><caption>Table 1</caption><tr><th><th>2019<th>2020</tr><tr><td>oak<td><p>1</p><td>2<br>3</tr></table>
<pre>
# no heading
  x &lt; y
</pre><h2>Model</h2><math alttext="x^{2}"><mi>x</mi><mn>2</mn></math>
<p hidden>gone</p><p style="display: none">gone</p><span aria-hidden="true">gone</span><script>gone()</script>
<aside>gone</aside><footer>gone</footer></body></html>"""

TEXT = """# Trees cool streets

They cool by 10^-1 to 2\xa0K
at noon.

A list:

- one
- two
  1. a
  2. b

After it.

Table 1

| 2019 | 2020
oak | 1 | 2 3

```
# no heading
  x < y
```

## Model

$x^{2}$"""


async def test_a_page_becomes_what_its_reader_sees(reader: DocumentReader, save: Save) -> None:
    document = await reader.read(save("page.html", PAGE.encode()))
    assert (document.text, document.title, document.problem) == (TEXT, "Trees and heat", None)


async def test_a_page_is_known_without_its_suffix(reader: DocumentReader, save: Save) -> None:
    assert (await reader.read(save("page", PAGE.encode()))).text == TEXT


def test_without_a_title_the_first_heading_is_it() -> None:
    assert extract_html(b"<h2>Part</h2><h1>The <i>name</i></h1><h1>Other</h1>").title == "The name"


def test_a_table_that_only_lays_out_a_page_is_no_table() -> None:
    page = b"<table><tr><td><h1>Left</h1><p>Words</td><td>right<table><tr><td>x<td>y</table></td></table>"
    assert extract_html(page).text == "# Left\n\nWords\n\nright\n\nx | y"


@pytest.mark.parametrize(
    "data",
    [
        "<p>Größe ½".encode(),
        "<p>Größe ½".encode("utf-16"),
        "<p>Größe ½".encode("cp1252"),
        '<meta charset="iso-8859-1"><p>Größe ½'.encode("cp1252"),
        '<meta charset="utf-8"><p>Größe ½'.encode("cp1252"),
        '<meta http-equiv="Content-Type" content="text/html; charset=macintosh"><p>Größe ½'.encode(
            "mac_roman", "ignore"
        ),
        b'<meta charset="unicode_escape"><p>' + "Größe ½".encode(),
    ],
)
def test_every_declared_and_undeclared_encoding_is_read(data: bytes) -> None:
    assert extract_html(data).text.startswith("Größe")


def test_a_formula_of_katex_is_read_once_and_as_tex() -> None:
    page = (
        '<span class="katex-mathml"><math><semantics><mi>y</mi>'
        '<annotation encoding="application/x-tex">y_1</annotation></semantics></math></span>'
        '<span class="katex-html" aria-hidden="true">y1</span>'
    )
    assert extract_html(page.encode()).text == "$y_1$"


def test_xhtml_may_close_a_script_at_once() -> None:
    page = (
        b'<?xml version="1.0"?>\n<html><head><title/><script src="a.js"/></head><body><br/><p>Seen.</p></body></html>'
    )
    assert extract_html(page).text == "Seen."


async def test_a_page_of_scripts_alone_says_so(reader: DocumentReader, save: Save) -> None:
    document = await reader.read(save("app.html", b"<html><body><div id=app></div><script>run()</script>"))
    assert document.problem == "holds no text that can be seen without running its scripts"


@pytest.mark.parametrize(
    ("page", "end"),
    [
        (b"<div>" * 20_000 + b"deep", "deep"),
        (b"<b>x" * 1_000_000, "xxx"),
        (b"<ul><li>" * 5_000 + b"deep", "- deep"),
        (b"</p></td><li>a</ol></li><tr><td>b<h1>c</ul>", "# c"),
        (b"<table><tr><td>" * 20_000 + b"deep", "deep"),
        (b"<p>cut <a href='", "cut"),
    ],
    ids=["nested", "5 MB", "lists", "ends without beginnings", "tables", "cut off"],
)
async def test_hostile_markup_is_read_within_bounds(reader: DocumentReader, save: Save, page: bytes, end: str) -> None:
    document = await reader.read(save("page.htm", page))
    assert document.problem is None
    assert document.text.endswith(end)


async def test_a_page_that_the_parser_takes_for_ever_over_is_given_up(save: Save) -> None:
    async with DocumentReader(children=1, seconds=1.0) as reader:
        document = await reader.read(save("page.html", b"<div>" * 1_000_000))
        assert document.problem is not None
        assert document.problem.startswith("took longer than")
        assert (await reader.read(save("next.html", b"<p>Next."))).text == "Next."
