"""What the campaign asks about: small papers that are like no others, and questions that are."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random

POISON = "poisonous"

_WORDS = (
    "fleet",
    "server",
    "paper",
    "reads",
    "answers",
    "once",
    "many",
    "questions",
    "found",
    "there",
    "small",
    "what",
)


@dataclass(slots=True)
class Papers:
    """Folders of papers under `folder`. Each begins with its mark, and each question with its own."""

    folder: Path
    rng: Random
    _papers: Iterator[int] = field(default_factory=lambda: count(1))
    _questions: Iterator[int] = field(default_factory=lambda: count(1))

    def write(self, name: str, number: int, *, mark: str = "") -> Path:
        """A folder of so many papers of 60 to 100 words; a `mark` stands in each."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        for place in range(number):
            words = self.rng.choices(_WORDS, k=self.rng.randint(60, 100))
            words[30:30] = [mark] if mark else []
            (folder / f"{place:05d}.txt").write_text(f"paper{next(self._papers):06d} {' '.join(words)}\n")
        return folder

    def ask(self, folder: Path, questions: int) -> list[str]:
        """The command that submits new questions about all papers of a folder."""
        words = [f"question{next(self._questions):06d} What is said of this?" for _ in range(questions)]
        asked = [part for word in words for part in ("--prompt", word)]
        return ["submit", str(folder), *asked, "--max-tokens", "16", "--model", "m"]
