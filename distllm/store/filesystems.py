"""What a folder lies on: write-ahead logging needs a disk of this machine's own."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_OF_OTHER_HOSTS = frozenset(
    {"9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "davfs", "drvfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs"}
    | {"nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "smb", "smb2", "smb3", "smbfs", "virtiofs", "webdav"}
)
_FUSE = ("davfs", "gcsfuse", "gluster", "rclone", "s3fs", "sshfs")


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A mounted file system: its kind as the system names it, and where it is mounted."""

    kind: str
    mounted_at: Path
    shared: bool
    """Whether other hosts can write to it too."""


def filesystem_of(path: Path) -> Filesystem | None:
    """What `path` lies on, None where the system does not tell."""
    try:
        mounts = _mounts()
    except (OSError, subprocess.SubprocessError):
        return None
    real = path.resolve()
    # Of two on one place the later one hides the other.
    return max(
        (mount for mount in mounts if real.is_relative_to(mount.mounted_at)),
        key=lambda mount: len(mount.mounted_at.parts),
        default=None,
    )


def _mounts() -> list[Filesystem]:
    """All mounts, the newest first."""
    if sys.platform == "darwin":
        done = subprocess.run(["/sbin/mount"], capture_output=True, text=True, check=True, timeout=5)
        return mounts_of_macos(done.stdout)
    return mounts_of_linux(Path("/proc/self/mountinfo").read_text(errors="replace"))


def mounts_of_macos(text: str) -> list[Filesystem]:
    """Read what `mount` prints: `/dev/disk3s1 on /Volumes/Papers (apfs, local, journaled)`."""
    found = []
    for line in reversed(text.splitlines()):
        place, _, rest = line.partition(" on ")[2].rpartition(" (")
        options = [word.strip() for word in rest.rstrip(")").split(",")]
        if place:
            shared = "local" not in options or _is_shared(options[0])
            found.append(Filesystem(options[0], Path(place), shared))
    return found


def mounts_of_linux(text: str) -> list[Filesystem]:
    """Read /proc/self/mountinfo; the kind stands behind the dash, since a line may have any number of tags."""
    found = []
    for line in reversed(text.splitlines()):
        before, dash, after = line.partition(" - ")
        words = before.split()
        if dash and len(words) > 4:
            kind = after.split()[0]
            # Blanks and backslashes are written as octal numbers.
            place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words[4])
            found.append(Filesystem(kind, Path(place), _is_shared(kind)))
    return found


def _is_shared(kind: str) -> bool:
    kind, _, program = kind.lower().partition(".")
    return kind in _OF_OTHER_HOSTS or program.startswith(_FUSE)
