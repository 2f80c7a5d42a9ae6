"""From LaTeX to text: what is kept as written, what is unwrapped, and what is only there for the look."""

import re

_MOST_ROUNDS = 40
_LONGEST_ABBREVIATION = 100
_LONGEST_TITLE = 5000
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_OPEN, _CLOSE = "\ue000", "\ue001"
_KEPT = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")

_MATH = "equation align gather multline eqnarray displaymath math flalign alignat"
_ENVIRONMENTS = "|".join([*_MATH.split(), "verbatim", "lstlisting", "minted"])
# Read from left to right, so that `\\[2pt]` begins no formula and `\$` ends none. What is searched to a far
# end is bounded, so that a thousand beginnings without an end do not cost a thousand searches of the whole.
_AS_WRITTEN = re.compile(
    rf"""\\begin\{{(?P<env>{_ENVIRONMENTS})(?P<star>\*?)\}}.{{0,5000}}?\\end\{{(?P=env)(?P=star)\}}
    | \\verb\*?(?P<bar>[^\sa-zA-Z*])(?P<verb>[^\n]*?)(?P=bar)
    | (?P<newline>\\\\\*?(?:\[[^\]\n]{{0,20}}\])?[ \t]*\n?)
    | \\(?P<escaped>[$%&_#{{}}])
    | \\\[.{{0,5000}}?\\\] | \\\(.{{0,5000}}?\\\)
    | \$\$.{{0,5000}}?\$\$
    | \$(?:\\.|[^$\\\n]|\n(?!\s*\n))+\$""",
    re.DOTALL | re.VERBOSE,
)
_COMMAND = re.compile(r"\\([A-Za-z]+)\*?(?:\s?\[[^\[\]{}]*\])*((?:\s?\{[^{}]*\})+)|\{([^{}]*)\}")
_ENVIRONMENT = re.compile(
    r"\\(begin|end)\{([A-Za-z]+\*?)\}(?:[ \t]*\[([^\]\n]*)\])?(?:(?<=[}\]])\{(?:[^{}\n]|\{[^{}\n]*\})*\})*"
)
_RULE = re.compile(r"\\(?:hline|toprule|midrule|bottomrule)(?![A-Za-z])[ \t]*\n?")
_ARGUMENT = re.compile(r"\{([^{}]*)\}")
_DECLARATION = re.compile(r"\\([A-Za-z]+)\*?[ \t]*")
_ABBREVIATION = re.compile(
    r"\\(?:re)?newcommand\*?\s*\{?\s*\\([A-Za-z]+)\s*\}?\s*(?=\{)|\\def\s*\\([A-Za-z]+)\s*(?=\{)"
)
_WORD = re.compile(r"\\([A-Za-z]+)(?:\{\})?")
_ACCENT = re.compile(
    r"\\(?:([\"'`^~=.])|([cvHukr])(?![A-Za-z]))\s*(?:\{\\?([A-Za-z])\}|\\([ij])(?![A-Za-z])|([A-Za-z]))"
)
_MARKS = dict(
    zip("\"'`^~=.cvHukr", "\u0308\u0301\u0300\u0302\u0303\u0304\u0307\u0327\u030c\u030b\u0306\u0328\u030a", strict=True)
)
_SIGNS = {
    "ss": "ß", "o": "ø", "O": "Ø", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "aa": "å", "AA": "Å", "l": "ł", "L": "Ł",
    "ldots": "…", "dots": "…", "textellipsis": "…", "LaTeX": "LaTeX", "TeX": "TeX", "S": "§", "P": "¶", "pounds": "£",
    "textendash": "\u2013", "textemdash": "—", "textbackslash": "\\", "textasciitilde": "~", "quad": " ", "qquad": " ",
    "par": "\n\n", "newline": "\n", "linebreak": "\n", "item": "\n- ", "and": ", ", "i": "i", "j": "j", "space": " ",
}  # fmt: skip


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_UNWRAPPED = _names(
    "emph textbf textit texttt textsc textrm textsf textmd textup textsl textnormal text mbox hbox fbox underline "
    "uline url path nolinkurl author date centerline MakeUppercase uppercase textquote enquote"
)
_SECOND = _names("href textcolor colorbox resizebox parbox raisebox")
_DROPPED = _names(
    "vspace hspace vskip hskip includegraphics bibliographystyle pagestyle thispagestyle setlength addtolength "
    "setcounter addtocounter thanks title newcommand renewcommand providecommand definecolor color cline cmidrule "
    "phantom vphantom hphantom usepackage documentclass hypersetup graphicspath"
)
_LOOKS = _names(
    "centering raggedright raggedleft noindent indent maketitle tableofcontents listoffigures listoftables newpage "
    "clearpage cleardoublepage pagebreak bigskip medskip smallskip tiny scriptsize "
    "footnotesize small normalsize large Large LARGE huge Huge bf it rm sf tt sc em bfseries itshape rmfamily sffamily "
    "ttfamily scshape upshape mdseries protect appendix balance onecolumn twocolumn hfill vfill relax sloppy xspace "
    "frontmatter mainmatter backmatter singlespacing doublespacing"
)
_TOP = ("part", "chapter")
_LEVELS = {
    "part": 1,
    "chapter": 1,
    "section": 1,
    "subsection": 2,
    "subsubsection": 3,
    "paragraph": 4,
    "subparagraph": 5,
}
_STATEMENTS = _names("theorem lemma proof definition corollary proposition remark example assumption conjecture claim")
_PLAIN = (
    (re.compile(r"``|''"), '"'),
    (re.compile(r"(?<!-)---(?!-)"), "—"),
    (re.compile(r"(?<!-)--(?!-)"), "\u2013"),
    (re.compile(r"\\[,;:! ~]|~|\\(?=\n)"), " "),
    (re.compile(r"\\[/@-]"), ""),
    (re.compile(r"[ \t]*&[ \t]*"), " | "),
)
_BLANKS = re.compile(r"[ \t]{2,}")
_INDENT = re.compile(r"^[ \t]+", re.MULTILINE)


class Prose:
    """The `text` of a LaTeX document's body, and its `title` or None.

    Commands are undone from the innermost outward. Whatever is not to be touched again, a formula or a command
    that nobody here knows, gives its place to a number between two private characters meanwhile.
    """

    def __init__(self, preamble: str, body: str) -> None:
        self._kept: list[str] = []
        self._words = _abbreviations(preamble + body)
        self._deeper = 1 if "\\chapter" in body else 0
        given = _argument_of("title", preamble) or _argument_of("title", body)
        self.title = " ".join(self._undo(given).split()) or None if given else None
        self.text = self._undo(body)
        if self.title and "\\maketitle" in body:
            names = _argument_of("author", preamble) or ""
            self.text = f"{self.title}\n\n{self._undo(names).replace(' ,', ',').strip()}\n\n{self.text.lstrip()}"

    def _undo(self, source: str) -> str:
        source = source.replace(_OPEN, "").replace(_CLOSE, "")
        source = _AS_WRITTEN.sub(self._as_written, source)
        source = _WORD.sub(lambda word: self._words.get(word[1], word[0]), source)
        source = _ENVIRONMENT.sub(_environment, _RULE.sub("", source))
        source = _ACCENT.sub(_accented, source)
        for _ in range(_MOST_ROUNDS):
            source, found = _COMMAND.subn(self._command, source)
            if not found:
                break
        source = _DECLARATION.sub(self._declaration, source)
        for pattern, plain in _PLAIN:
            source = pattern.sub(plain, source)
        return self._restored(_INDENT.sub("", _BLANKS.sub(" ", source)))

    def _as_written(self, found: re.Match[str]) -> str:
        if found["newline"]:
            return "\n"
        return self._keep(found["escaped"] or (found["verb"] if found["bar"] else found[0]))

    def _command(self, found: re.Match[str]) -> str:
        name, groups, bare = found[1], found[2], found[3]
        if bare is not None:
            return str(bare)
        arguments: list[str] = _ARGUMENT.findall(groups)
        first, rest = arguments[0], "".join(f"{{{argument}}}" for argument in arguments[1:])
        if name in _UNWRAPPED:
            return first + rest
        if name in _SECOND:
            return arguments[-1]
        if name in _DROPPED:
            return ""
        if name in _LEVELS:
            return (
                f"\n\n{'#' * (_LEVELS[name] + self._deeper * (name not in _TOP))} {' '.join(first.split())}\n\n{rest}"
            )
        if "cite" in name.lower():
            return f"[{first}]{rest}"
        match name:
            case "bibitem":
                return f"\n\n[{first}] {rest}"
            case "caption" | "captionof":
                return f"\n\nCaption: {arguments[-1]}\n\n"
            case "footnote":
                return f" (Footnote: {first}){rest}"
            case "multicolumn" | "multirow":
                return arguments[-1]
            case "textsuperscript":
                return f"^{first}{rest}"
            case "textsubscript":
                return f"_{first}{rest}"
            case _:
                return self._keep(found[0])

    def _declaration(self, found: re.Match[str]) -> str:
        name = found[1]
        if name in _LOOKS:
            return ""
        return _SIGNS[name] if name in _SIGNS else found[0]

    def _keep(self, text: str) -> str:
        self._kept.append(text)
        return f"{_OPEN}{len(self._kept) - 1}{_CLOSE}"

    def _restored(self, text: str) -> str:
        for _ in range(_MOST_ROUNDS):
            text, found = _KEPT.subn(lambda mark: self._kept[int(mark[1])], text)
            if not found:
                break
        return text


def _environment(found: re.Match[str]) -> str:
    verb, name, note = found.groups()
    name = name.rstrip("*")
    if verb == "begin" and name == "abstract":
        return "\n\n# Abstract\n\n"
    if verb == "begin" and name in _STATEMENTS:
        return f"\n\n{name.capitalize()}{f' ({note})' if note else ''}. "
    return "\n\n" if name in _STATEMENTS or name == "abstract" else "\n"


def _accented(found: re.Match[str]) -> str:
    letter = found[3] or found[4] or found[5]
    return letter + _MARKS[found[1] or found[2]]


def _abbreviations(source: str) -> dict[str, str]:
    """Find the macros without arguments that stand for a few words."""
    found = {}
    for definition in _ABBREVIATION.finditer(source):
        words = _balanced(source, definition.end(), _LONGEST_ABBREVIATION)
        if words is not None and not set(words) & set("#$^"):
            found[definition[1] or definition[2]] = words.replace("\\xspace", "")
    return found


def _argument_of(command: str, source: str) -> str | None:
    """The argument of a command's first use, whatever braces are in it."""
    found = re.search(rf"\\{command}\s*(?:\[[^\]]*\])?\s*(?=\{{)", source)
    return _balanced(source, found.end(), _LONGEST_TITLE) if found else None


def _balanced(source: str, start: int, longest: int) -> str | None:
    """What stands in the braces that open at `start`; None where they do not close within `longest` characters."""
    depth = 0
    for brace in _BRACE.finditer(source, start, start + longest):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0 and brace[0] == "}":
            return source[start + 1 : brace.start()]
    return None
