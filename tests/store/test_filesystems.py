"""Which folders lie on a disk of this machine's own."""

import sys
from pathlib import Path

import pytest

from distllm.store.filesystems import filesystem_of, mounts_of_linux, mounts_of_macos

LINUX = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:35 / /mnt/shelf rw shared:7 master:1 - nfs4 nas:/shelf rw,vers=4.2
41 22 0:36 / /mnt/my\040papers rw - fuse.sshfs me@studio: rw
42 22 0:37 / /mnt/stick rw - fuseblk /dev/sdb1 rw
a line that is none
"""
MACOS = """
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
//me@nas._smb._tcp.local/papers on /Volumes/papers (smbfs, nodev, nosuid, mounted by me)
nas:/shelf on /System/Volumes/Data/shelf (nfs, nodev, nosuid)
/dev/disk4s2 on /Volumes/My (old) stick (msdos, local, nodev, noowners)
"""


def test_linux_tells_kind_and_place() -> None:
    found = {str(mount.mounted_at): (mount.kind, mount.shared) for mount in mounts_of_linux(LINUX)}
    assert found == {
        "/": ("ext4", False),
        "/mnt/shelf": ("nfs4", True),
        "/mnt/my papers": ("fuse.sshfs", True),
        "/mnt/stick": ("fuseblk", False),
    }


def test_macos_tells_kind_and_place() -> None:
    found = {str(mount.mounted_at): (mount.kind, mount.shared) for mount in mounts_of_macos(MACOS)}
    assert found == {
        "/": ("apfs", False),
        "/Volumes/papers": ("smbfs", True),
        "/System/Volumes/Data/shelf": ("nfs", True),
        "/Volumes/My (old) stick": ("msdos", False),
    }


def test_this_machines_temporary_folder_is_its_own(tmp_path: Path) -> None:
    found = filesystem_of(tmp_path)
    assert found is not None
    assert tmp_path.resolve().is_relative_to(found.mounted_at)
    assert not found.shared


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux mounts the processes as files")
def test_the_innermost_mount_counts() -> None:
    found = filesystem_of(Path("/proc/self"))
    assert found is not None
    assert (found.kind, found.mounted_at) == ("proc", Path("/proc"))
