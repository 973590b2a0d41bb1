import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.packages import write_deb

from mirage_sim.data.debian_packages import files_of_package

LIMIT = 1_500_000


def test_wanted_files_are_read_and_nothing_is_written(tmp_path: Path):
    link, device = tarfile.TarInfo("./link.jpg"), tarfile.TarInfo("./device")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device.type = tarfile.CHRTYPE
    files = {"../../evil.jpg": b"one", "/evil.jpg": b"two", "./notes": b"text"}
    package = write_deb(tmp_path / "evil.deb", files, [link, device])
    before = sorted(tmp_path.parent.rglob("*"))
    found = list(files_of_package(package, lambda file: file.size in (3, 0), LIMIT))
    assert found == [("../../evil.jpg", b"one"), ("/evil.jpg", b"two")]
    assert sorted(tmp_path.parent.rglob("*")) == before and not Path("/evil.jpg").exists()


def test_package_larger_than_limit_raises(tmp_path: Path):
    package = write_deb(tmp_path / "bomb.deb", {"zeros": bytes(1_000_000), "more": bytes(1_000_000)})
    assert package.stat().st_size < 10_000
    with pytest.raises(ValueError, match="bomb.deb: expected .* of at most 1500000 bytes, got more"):
        list(files_of_package(package, lambda file: file.size == 5, LIMIT))


@pytest.mark.parametrize("kept", [0, 30, 130, 300, -200])
def test_damaged_package_raises(kept: int, tmp_path: Path):
    package = write_deb(tmp_path / "damaged.deb", {"a": np.random.default_rng(0).bytes(3000)})
    package.write_bytes(package.read_bytes()[:kept])
    with pytest.raises(ValueError, match="damaged.deb: expected a whole Debian package"):
        list(files_of_package(package, lambda file: True, LIMIT))
