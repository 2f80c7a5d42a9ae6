"""Office formats and e-books, through kreuzberg, which the extra `formats` adds.

Formulas of a DOCX are kept; what a picture shows is not read.
"""

from distllm.documents.extract import Extract, refuse
from distllm.documents.tidy import tidy

ADD_FORMATS = "uv pip install kreuzberg"

_MIME_TYPES = {
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".epub": "application/epub+zip",
    ".rtf": "application/rtf",
}


def extract_office(data: bytes, suffix: str) -> Extract:
    """Read a DOCX, PPTX, ODT, EPUB or RTF as Markdown; its title is the one that it says it has.

    A file with another `suffix` is taken for what its bytes look like.
    """
    try:
        from kreuzberg import ExtractionConfig, detect_mime_type_from_bytes, extract_bytes_sync
        from kreuzberg.exceptions import KreuzbergError
    except ImportError:
        return refuse(
            f"is of a kind that distllm reads with a package that is not installed; add it with: {ADD_FORMATS}"
        )
    config = ExtractionConfig(output_format="markdown", use_cache=False, disable_ocr=True)
    try:
        mime_type = _MIME_TYPES.get(suffix) or detect_mime_type_from_bytes(data)
        found = extract_bytes_sync(data, mime_type, config)
    except KreuzbergError as error:
        kind = suffix.lstrip(".").upper() or "document"
        return refuse(f"is no {kind}, or is damaged: {' '.join(str(error).split())}")
    text = tidy(found.content)
    title = found.metadata.get("title")
    return Extract(text, " ".join(title.split()) or None if title else None) if text else refuse("is empty")
