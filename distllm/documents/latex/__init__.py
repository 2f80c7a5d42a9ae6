"""LaTeX: the prose of a paper, with its headings marked and its mathematics as it was written.

Its limits: nothing is typeset, so macros of the author's own stay as they stand, unless they only abbreviate
some words; `\\ifthenelse` and its like are not decided; a bibliography that BibTeX keeps elsewhere is not
read. Parts that another file takes in are documents of their own too, where their whole folder is submitted.
"""

from pathlib import Path

from distllm.documents.extract import Extract, refuse
from distllm.documents.latex.files import Files
from distllm.documents.latex.prose import Prose
from distllm.documents.text import decode
from distllm.documents.tidy import tidy

_BEGIN, _END = "\\begin{document}", "\\end{document}"


def extract_latex(data: bytes, folder: Path) -> Extract:
    """Read a LaTeX file whose parts are in `folder` or below it.

    Only what stands between `\\begin{document}` and `\\end{document}` is read, or all where neither is. The
    title is that of `\\title`.
    """
    source = decode(data)
    if source is None:
        return refuse("is binary, not a text")
    files = Files(folder, data)
    source = files.put_in(source)
    preamble, begins, body = source.partition(_BEGIN)
    body = body.partition(_END)[0] if begins else source
    prose = Prose(preamble if begins else "", body)
    text = tidy(prose.text)
    if not text:
        return refuse("is empty")._replace(sha256=files.sha256)
    return Extract(text, prose.title, sha256=files.sha256)
