"""Papers as they are, fetched from Debian's packages.

It takes apt-get and dpkg (Debian, Ubuntu), and a package list (`apt-get update`); about 60 MB are fetched once and
kept in pytest's cache. No paper is part of this repository; `real_papers.json` has for each what a person who
reads it finds there: pages, title, and sentences, among them those that go on in the next column or page. Its
`tokens` are SmolLM2's own count.
"""

import gzip
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Paper:
    """A paper in a package of Debian, and what a reader finds in it."""

    package: str
    path: str
    pages: int
    tokens: int
    title: str
    sentences: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its file's name."""
        return Path(self.path).name.removesuffix(".gz")


PAPERS = [
    Paper(**paper | {"sentences": tuple(paper["sentences"])})
    for paper in json.loads(Path(__file__).with_name("real_papers.json").read_text(encoding="utf-8"))
]


class Shelf:
    """The papers of packages, each package fetched once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, package: str, path: str) -> bytes:
        """The bytes of a file, unpacked; `path` may have a star for a folder. Fails the test if it cannot be had."""
        place = self._folder / package
        if not place.exists():
            self._fetch(package, place)
        found = sorted(place.glob(path))
        if not found:
            pytest.fail(f"the package {package} has no {path} (any more)")
        data = found[0].read_bytes()
        return gzip.decompress(data) if found[0].suffix == ".gz" else data

    def _fetch(self, package: str, place: Path) -> None:
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            pytest.fail("not run: the papers come in Debian's packages, and there is no apt-get or dpkg here")
        loading = self._folder / f"{package}.part"
        shutil.rmtree(loading, ignore_errors=True)
        loading.mkdir(parents=True)
        got = subprocess.run(["apt-get", "download", package], cwd=loading, capture_output=True, text=True, check=False)
        if got.returncode:
            pytest.fail(f"not run: {package} cannot be fetched ({got.stderr.strip()[-300:]}); try `apt-get update`")
        [archive] = loading.glob("*.deb")
        subprocess.run(["dpkg", "-x", archive, loading / "tree"], check=True)
        (loading / "tree").rename(place)
        shutil.rmtree(loading)
