"""`distllm presets`."""

import json
from pathlib import Path

from rich.padding import Padding
from rich.text import Text

from distllm.cli.screen import complain, out, safe, table
from distllm.config import preset_folders
from distllm.domain.errors import UsageError
from distllm.domain.words import count
from distllm.presets import Found, Preset, list_presets, load_preset, preset_file

EXIT_BROKEN = 1


def show_presets(as_json: bool) -> int:
    """Print a line for each preset; a file that cannot be followed is told of on stderr, and hides no other."""
    good: list[tuple[Found, Preset]] = []
    broken: list[UsageError] = []
    for found in list_presets(preset_folders()):
        if isinstance(found.preset, Preset):
            good.append((found, found.preset))
        else:
            broken.append(found.preset)
    if as_json:
        facts = [
            {
                "name": found.name,
                "description": preset.description,
                "questions": [template.name for template in preset.templates],
                "file": str(found.path),
                "built_in": found.built_in,
            }
            for found, preset in good
        ]
        out.print(json.dumps(facts), soft_wrap=True)
    else:
        rows = [(found.name, len(preset.templates), preset.description, _from(found)) for found, preset in good]
        out.print(table(("preset", "questions", "description", "from"), rows, numbers=("questions",)))
    for error in broken:
        complain(str(error))
    return EXIT_BROKEN if broken else 0


def show_preset(name: str, as_json: bool) -> int:
    """Print the questions of a preset, or its file as it is."""
    folders = preset_folders()
    preset, file = load_preset(name, folders), preset_file(name, folders)
    if as_json:
        text = file.read_text("utf-8-sig").strip()
        out.print(safe(text) if out.is_terminal else text, soft_wrap=True)
        return 0
    asked = count(len(preset.templates), "question")
    out.print(Text(safe(f"{preset.name}: {preset.description}" if preset.description else preset.name), style="bold"))
    out.print(safe(f"{asked}, temperature {preset.temperature:g}; {file}"), soft_wrap=True, style="dim")
    for template in preset.templates:
        out.print()
        bound = template.max_tokens or preset.max_tokens
        out.print(Text(safe(template.name), style="bold cyan"), Text(f"at most {bound} tokens", style="dim"))
        out.print(Padding(Text(safe(template.text)), (0, 0, 0, 2)))
        if template.merge:
            out.print(Padding(Text(safe(f"Answers about parts: {template.merge}"), style="dim"), (0, 0, 0, 2)))
    return 0


def _from(found: Found) -> str:
    if found.built_in:
        return "built-in"
    path = found.path
    return f"./{path}" if not path.is_absolute() else _from_home(path)


def _from_home(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
