"""HTML: what a reader of the page would read, as headings, paragraphs, lists and rows.

Its limits: no script is run, so a page that scripts put together is empty here; styles are looked at only
where an element itself says that it is hidden.
"""

import codecs
import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

from distllm.documents.extract import Extract, refuse
from distllm.documents.text import decode
from distllm.documents.tidy import tidy

_DECLARATION = re.compile(
    rb"""<(?:meta\b[^>]*\bcharset|\?xml\b[^>]*\bencoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE
)
_DECLARED_WITHIN = 4096
# Python knows codecs that no page has, and some of them are slow on purpose.
_CHARACTER_SET = re.compile(r"(?:iso8859|cp|koi8|gb|big5|euc|shift|mac|iso2022|tis|hz|johab)[\w-]*")
_XML = re.compile(r"\s*<(?:\?xml|!doctype[^>]*xhtml)", re.IGNORECASE)
_CLOSED_AT_ONCE = re.compile(r"<([a-z][\w:.-]*)([^<>]*)/>", re.IGNORECASE)
_DEEPEST_INDENT = 10


def _tags(names: str) -> frozenset[str]:
    return frozenset(names.split())


_VOID = _tags("area base br col embed hr img input link meta param source track wbr")
_HIDING = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_BLANKS = re.compile(r"[ \t\n\r\f]+")
_SPACES = re.compile(r" {2,}")
_AROUND_BREAKS = re.compile(r" *\n *")

_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_LEFT_OUT = _tags(
    "script style nav footer aside head template noscript iframe object svg canvas audio video "
    "button select textarea dialog"
)
_BLOCKS = _tags(
    "address article blockquote body caption center details div dl fieldset figcaption figure form header hgroup hr "
    "legend main ol p section summary table ul"
)
_LINES = _tags("dd dt li tbody td tfoot th thead tr")
_LISTS = ("ol", "ul")
_CELLS = ("td", "th")
_SIGNS = {"sup": "^", "sub": "_"}


def extract_html(data: bytes) -> Extract:
    """Read a page; its title is that of its head, else its first heading of level 1.

    Headings bear `#`, lists `-` or numbers, a table's cells stand in rows with ` | ` between them, and
    formulas are given as the TeX that the page carries for them. Navigation, footers, asides, scripts and
    what is hidden are left out.
    """
    markup = decode(data, _declared(data))
    if markup is None:
        return refuse("is binary, not a text")
    if _XML.match(markup):
        markup = _CLOSED_AT_ONCE.sub(_with_end_tag, markup)
    tree = LexborHTMLParser(markup)
    page = _Page(tree)
    text = tidy("".join(page.pieces))
    if not text:
        return refuse("holds no text that can be seen without running its scripts")
    named = tree.css_first("head > title")
    return Extract(text, (named and _flat(named.text_lexbor())) or page.heading)


def _declared(data: bytes) -> str | None:
    """Name the encoding that a page says it has; None for UTF-8, and for what Python cannot or should not try."""
    found = _DECLARATION.search(data[:_DECLARED_WITHIN])
    if found is None:
        return None
    try:
        name = codecs.lookup(found[1].decode("ascii")).name
    except (LookupError, UnicodeDecodeError):
        return None
    if name in ("iso8859-1", "ascii"):
        # As browsers do.
        return "cp1252"
    return name if _CHARACTER_SET.fullmatch(name) else None


def _with_end_tag(tag: re.Match[str]) -> str:
    """Give `<script/>` the end tag that HTML, unlike XML, waits for."""
    return tag[0] if tag[1].lower() in _VOID else f"<{tag[1]}{tag[2]}></{tag[1]}>"


class _Page:
    """A page on its way to a text: the pieces that are written, and the line that is being gathered."""

    def __init__(self, tree: LexborHTMLParser) -> None:
        self.pieces: list[str] = []
        self.heading: str | None = None
        self._line: list[str] = []
        self._lead = ""
        self._gap = ""
        self._lists: list[int | None] = []
        self._tables: list[bool] = []
        self._cells = 0
        self._cells_of_row = 0
        if tree.root is not None:
            self._frames = _frames(tree.root)
            self._walk(tree.root)
            self._break("\n")

    def _walk(self, root: LexborNode) -> None:
        """Go through all that can be seen, in a loop: elements may be nested deeper than Python may recurse."""
        node, end = root, root.mem_id
        while True:
            seen = self._open(node)
            child = node.first_child if seen else None
            if child is not None:
                node = child
                continue
            if seen:
                self._close(node.tag or "")
            while (after := node.next) is None or node.mem_id == end:
                above = node.parent
                if node.mem_id == end or above is None:
                    return
                node = above
                self._close(node.tag or "")
            node = after

    def _open(self, node: LexborNode) -> bool:
        """Begin a node; say whether to go into it."""
        tag = node.tag or ""
        if tag == "-text":
            self._line.append(_BLANKS.sub(" ", node.text_content or ""))
            return False
        if tag.startswith("-") or tag in _LEFT_OUT or _is_hidden(node):
            return False
        if tag == "pre" and not self._cells:
            self._keep(node.text_lexbor())
            return False
        if tag == "math":
            self._line.append(_formula(node))
            return False
        if tag == "img":
            self._line.append(_flat(node.attributes.get("alt") or ""))
        elif tag == "br":
            self._line.append(" " if self._cells or self._lead.startswith("#") else "\n")
        elif tag in _SIGNS:
            self._line.append(_SIGNS[tag])
        elif tag in _CELLS and self._tables[-1:] == [False]:
            if self._cells_of_row:
                self._line.append(" | ")
            self._cells_of_row += 1
            self._cells += 1
        else:
            self._begin(node, tag)
        return True

    def _begin(self, node: LexborNode, tag: str) -> None:
        """Begin what stands on lines of its own."""
        self._break_for(tag)
        if tag in _HEADINGS:
            self._lead = _HEADINGS[tag]
            if tag == "h1":
                self.heading = self.heading or _flat(node.text_lexbor()) or None
        elif tag in _LISTS:
            self._lists.append(1 if tag == "ol" else None)
        elif tag == "li":
            self._lead = self._item()
        elif tag == "table":
            self._tables.append(node.mem_id in self._frames)
        elif tag == "tr":
            self._cells_of_row = 0

    def _close(self, tag: str) -> None:
        if tag in _CELLS and self._tables[-1:] == [False]:
            self._cells -= 1
            return
        if tag in _LISTS:
            self._break("\n")
            self._lists.pop()
        self._break_for(tag)
        if tag == "table":
            self._tables.pop()
        elif tag == "li" or tag in _HEADINGS:
            self._lead = ""

    def _break_for(self, tag: str) -> None:
        """End the line where `tag` begins or ends, if it does so; in a table's cell nothing does."""
        if tag in _LINES or tag in _BLOCKS or tag in _HEADINGS:
            if self._cells:
                self._line.append(" ")
            else:
                self._break("\n" if tag in _LINES or self._lists else "\n\n")

    def _break(self, gap: str) -> None:
        """End the line; what follows stands at least `gap` below it."""
        text = _AROUND_BREAKS.sub("\n", _SPACES.sub(" ", "".join(self._line))).strip()
        self._line.clear()
        if text:
            self.pieces += self._gap, self._lead, text
            self._gap, self._lead = gap, ""
        else:
            self._gap = max(self._gap, gap, key=len)

    def _keep(self, text: str) -> None:
        """Write a text as it stands, fenced, since a `#` in it is no heading."""
        self._break("\n\n")
        fence = "```"
        while fence in text:
            fence += "`"
        self.pieces += self._gap, self._lead, fence, "\n", text.strip("\n"), "\n", fence
        self._gap, self._lead = "\n\n", ""

    def _item(self) -> str:
        """The sign before an item, set in by the depth of its list."""
        number = self._lists[-1] if self._lists else None
        if number is not None:
            self._lists[-1] = number + 1
        depth = min(len(self._lists) - 1, _DEEPEST_INDENT)
        return "  " * depth + ("- " if number is None else f"{number}. ")


def _flat(text: str) -> str:
    return " ".join(text.split())


def _is_hidden(node: LexborNode) -> bool:
    told = node.attributes
    return bool(told) and (
        "hidden" in told
        or told.get("aria-hidden") == "true"
        or told.get("role") == "navigation"
        or _HIDING.search(told.get("style") or "") is not None
    )


def _formula(node: LexborNode) -> str:
    """Give the TeX that a formula carries, else its signs."""
    told = node.css_first('annotation[encoding="application/x-tex"]')
    tex = node.attributes.get("alttext") or (told and told.text_lexbor())
    return f"${_flat(tex)}$" if tex else _flat(node.text_lexbor())


def _frames(root: LexborNode) -> set[int]:
    """Find the elements that hold tables and headings: a table among them is there for the layout of its page."""
    found: set[int] = set()
    for node in root.css("table, h1, h2, h3"):
        above = node.parent
        while above is not None and above.mem_id not in found:
            found.add(above.mem_id)
            above = above.parent
    return found
