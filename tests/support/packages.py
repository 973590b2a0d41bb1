"""Writing Debian packages."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path


def write_deb(path: Path, files: dict[str, bytes], others: Sequence[tarfile.TarInfo] = ()) -> Path:
    """Write a package that holds files and other members, such as links."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for member in others:
            archive.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        members = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", data.getvalue())]
        for name, content in members:
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))
    return path
