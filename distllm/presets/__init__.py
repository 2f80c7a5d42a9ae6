"""Presets: questions kept in JSON files, and how they are put to a server.

A file holds `prompts`, each with `name`, `text` (a string, or a list of lines) and, if its answer needs a
bound of its own, `max_tokens`; and for all of them `description`, `max_tokens` and `temperature`. `merge`, of a
question or of all, says how the answers about the parts of a long document are put together. Questions
have no placeholders: the document always comes first, on its own, and the question last.
"""

from distllm.presets.files import Found, list_presets, load_preset, preset_file
from distllm.presets.preset import Preset, preset_of_prompts
from distllm.presets.render import (
    MERGE,
    MERGE_SYSTEM,
    render_merge,
    render_merge_question,
    render_part_question,
    render_question,
    render_system,
)

__all__ = [
    "MERGE",
    "MERGE_SYSTEM",
    "Found",
    "Preset",
    "list_presets",
    "load_preset",
    "preset_file",
    "preset_of_prompts",
    "render_merge",
    "render_merge_question",
    "render_part_question",
    "render_question",
    "render_system",
]
