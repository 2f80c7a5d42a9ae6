"""A disk that can be full: a small file system in memory where one may be mounted, else a bound on the database."""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.switches import Switches

BYTES = 256 * 2**20
FILLER = "filler"


@dataclass(slots=True)
class Disk:
    """What the database in `folder` lies on; `mounted` if it is a file system of its own."""

    folder: Path
    switches: Switches
    mounted: bool = False
    device: str | None = None

    def mount(self) -> bool:
        """Mount one, if this system lets us: as root on Linux, anyhow on macOS."""
        if sys.platform == "darwin":
            self.mounted = self._mount_on_macos()
        elif os.geteuid() == 0:
            command = ["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "chaos", str(self.folder)]
            self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        return self.mounted

    def _mount_on_macos(self) -> bool:
        made = subprocess.run(
            ["hdiutil", "attach", "-nomount", f"ram://{BYTES // 512}"], capture_output=True, check=False, text=True
        )
        self.device = made.stdout.strip() or None
        if made.returncode != 0 or self.device is None:
            return False
        steps = (["newfs_hfs", self.device], ["mount", "-t", "hfs", self.device, str(self.folder)])
        return all(subprocess.run(step, capture_output=True, check=False).returncode == 0 for step in steps)

    def unmount(self) -> None:
        """Give it back; what was on it is kept beside it."""
        if self.mounted:
            shutil.copytree(self.folder, self.folder.with_name(f"{self.folder.name}-kept"), dirs_exist_ok=True)
            lazily = ["-l"] if sys.platform == "linux" else []
            subprocess.run(["umount", *lazily, str(self.folder)], capture_output=True, check=False)
        if self.device is not None:
            subprocess.run(["hdiutil", "detach", self.device], capture_output=True, check=False)
        self.mounted, self.device = False, None

    def fill(self) -> None:
        """Leave no room."""
        if not self.mounted:
            self.switches.turn(full=True)
            return
        with (self.folder / FILLER).open("wb", buffering=0) as file:
            for size in (2**20, 2**12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """Make room again."""
        self.switches.turn(full=False)
        (self.folder / FILLER).unlink(missing_ok=True)
