"""LaTeX."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from distllm.documents import DocumentReader
from distllm.documents.latex import extract_latex

Save = Callable[[str, bytes], Path]

PAPER = r"""\documentclass{article}
\newcommand{\ours}{GreenNet\xspace}
\title[short]{On {\em Nested {Braces}}\\ and $x^2$\thanks{Money}}
\author{Erd\H{o}s \and J\"urgen M\"{u}ller}
\begin{document}
\maketitle
\begin{abstract}
We do 50\% better. % secret
\end{abstract}
\section{Intro \emph{now}}
Text~with ``quotes'' and \textbf{bold \textit{nested $a_{1}$ and} more} \citep[see][p.~3]{key1,key2}.
\ours{} beats Fig.~\ref{fig:a}: $\{a\}$ \\% c
next line --- dash \unknown{a \emph{b}}.
% whole line
joined \url{http://a.b/c_d%20e}\footnote{A note.}
\iffalse never \fi
\begin{equation}
  E = mc^2 \label{e}
\end{equation}
\subsection*{Table}
\begin{table}[t]\centering\caption{Results of \textbf{all}.}
\begin{tabular}{l@{}cr}
\hline a & b & c \\ \hline
1 & 2 & 3 \\[2pt]
\end{tabular}
\end{table}
\begin{itemize}
  \item one
  \item two
\end{itemize}
\begin{verbatim}
100 % kept  \emph{x}
\end{verbatim}
\begin{theorem}[Main] {\bf All} is well. \end{theorem}
\end{document} junk"""

TEXT = r"""On Nested Braces and $x^2$

Erdős, Jürgen Müller

# Abstract

We do 50% better.

# Intro now

Text with "quotes" and bold nested $a_{1}$ and more [key1,key2].
GreenNet beats Fig. \ref{fig:a}: $\{a\}$
next line — dash \unknown{a b}.
joined http://a.b/c_d%20e (Footnote: A note.)

\begin{equation}
  E = mc^2 \label{e}
\end{equation}

## Table

Caption: Results of all.

a | b | c
1 | 2 | 3

- one

- two

\begin{verbatim}
100 % kept  \emph{x}
\end{verbatim}

Theorem (Main). All is well."""


async def test_a_paper_becomes_prose_with_its_mathematics_as_written(reader: DocumentReader, save: Save) -> None:
    document = await reader.read(save("paper.tex", PAPER.encode()))
    assert document.text == TEXT
    assert (document.title, document.problem) == ("On Nested Braces and $x^2$", None)


def main_file(*names: str) -> bytes:
    inputs = "\n".join(rf"\input{{{name}}}" for name in names)
    return rf"\begin{{document}}Begin. {inputs} End.\end{{document}}".encode()


async def test_parts_in_the_folder_are_put_in_and_belong_to_the_hash(reader: DocumentReader, save: Save) -> None:
    one, other = (save(f"{name}/main.tex", main_file("parts/first", "./parts/second.tex")) for name in ("one", "other"))
    for name in ("one", "other"):
        save(f"{name}/parts/first.tex", rf"First of {name}. \include{{parts/third}}".encode())
        save(f"{name}/parts/second.tex", b"Second.")
        save(f"{name}/parts/third.tex", b"Third. % said")
    documents = [await reader.read(path) for path in (one, other)]
    assert " ".join(documents[0].text.split()) == "Begin. First of one. Third. Second. End."
    assert documents[0].sha256 != documents[1].sha256
    assert (await reader.read(one)) == documents[0]


async def test_nothing_outside_the_folder_is_taken(reader: DocumentReader, save: Save, tmp_path: Path) -> None:
    secret = save("secret.tex", b"SECRET")
    save("paper/.hidden.tex", b"SECRET")
    (tmp_path / "paper" / "link.tex").symlink_to(secret)
    (tmp_path / "paper" / "up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "paper" / "pipe.tex")
    names = ("../secret", str(secret), "link", "up/secret", ".hidden", "pipe", "missing", "~/secret", "a/../../secret")
    document = await reader.read(save("paper/main.tex", main_file(*names)))
    assert document.problem is None
    assert "SECRET" not in document.text
    assert all(f"\\input{{{name}}}" in document.text for name in ("../secret", "link", "pipe", "missing"))


async def test_a_file_that_puts_itself_in_ends_somewhere(reader: DocumentReader, save: Save) -> None:
    document = await reader.read(save("main.tex", rb"Again \input{main} \input{main}"))
    assert document.problem is None
    assert 10 <= document.text.count("Again") <= 1000


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("foo % a\n  bar", "foo bar"),
        ("foo % a\n\nbar", "foo\n\nbar"),
        (r"5\% and \\% a" + "\nb", "5% and\nb"),
        (r"\chapter{A}\section{B}", "# A\n\n## B"),
        (r"\emph{open", r"\emph{open"),
        (r"costs \$5 and \$6, {\it not} $5$", "costs $5 and $6, not $5$"),
        (r"pages 1--2, \verb|a_b%c|", "pages 1\u20132, a_b%c"),
        (r"Fran\c{c}ois \'Etienne na\"{\i}ve stra\ss e", "François Étienne naïve straße"),
    ],
)
def test_small_things(source: str, text: str, tmp_path: Path) -> None:
    assert extract_latex(source.encode(), tmp_path).text == text


@pytest.mark.parametrize("source", ["{" * 300_000, "$x " * 300_000, r"\emph{" * 50_000, r"\[" * 5_000])
async def test_hostile_sources_are_read_within_bounds(reader: DocumentReader, save: Save, source: str) -> None:
    assert (await reader.read(save("paper.latex", source.encode()))).problem is None
