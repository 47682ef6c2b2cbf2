"""What tar archives hold, and where, in the form of the index files that DALI's webdataset reader takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from fastssl._native import DecodeError

__all__ = ["TarMember", "TarSample", "samples_of", "tar_members", "write_index"]

_BLOCK = 512
# Types of members, POSIX.1-2017, pax, and GNU tar's for long names.
_FILE, _LONG_NAME, _PAX = (b"0", b"\0", b"7"), b"L", b"x"


class TarMember(NamedTuple):
    """A file in an archive: `size` bytes from `offset` on."""

    name: str
    offset: int
    size: int


def tar_members(path: str) -> Iterator[TarMember]:
    """The files of an archive, in order; folders, links and the like are passed over.

    Several times as fast as `tarfile`, which makes an object of each header: an ImageNet in archives has millions.

    Raises:
        DecodeError: The file cannot be read, or is no whole tar archive, uncompressed. Names it.
    """
    try:
        with open(path, "rb") as file:
            yield from _members(path, file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise DecodeError(f"{path}: cannot open: {error.strerror}") from error


def _members(path: str, file: BinaryIO, end: int) -> Iterator[TarMember]:
    at, name, size = 0, None, None  # the latter two as a header of its own gave them
    while at < end:
        file.seek(at)
        header = file.read(_BLOCK)
        if not header.strip(b"\0"):  # two blocks of zeros end an archive; a reader must do with one
            return
        whole = len(header) == _BLOCK and _checksum(header) == _number(header[148:156])
        kind, own = header[156:157], _number(header[124:136]) if whole else -1
        if own < 0:
            raise DecodeError(f"{path}: no tar archive, or a compressed or damaged one, from byte {at} on")
        at += _BLOCK
        length = own if size is None or kind in (_LONG_NAME, _PAX) else size
        if at + length > end:
            raise DecodeError(f"{path}: the archive ends early (truncated), within the file that begins at byte {at}")
        if kind == _LONG_NAME:
            name = file.read(length).rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif kind == _PAX:
            try:
                records = dict(_pax_records(file.read(length)))
                name = records.get("path", name)
                if "size" in records:
                    size = int(records["size"])
                    if size < 0:
                        raise ValueError("a size below 0")
            except (ValueError, IndexError) as error:
                raise DecodeError(
                    f"{path}: a damaged tar archive: the pax header at byte {at} cannot be read"
                ) from error
        else:
            if kind in _FILE:
                yield TarMember(name or _name_of(header), at, length)
            name = size = None
        at += -(-length // _BLOCK) * _BLOCK


def _checksum(header: bytes) -> int:
    return sum(header) - sum(header[148:156]) + 8 * ord(" ")


def _number(field: bytes) -> int:
    """An octal number; or one of 256, marked by the highest bit, as GNU tar writes large ones. -1: neither."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    try:
        return int(field.split(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return -1


def _name_of(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")


def _pax_records(data: bytes) -> Iterator[tuple[str, str]]:
    """Records "length key=value", the length counting all of the record."""
    while data:
        length = int(data.split(b" ", 1)[0])
        if not 0 < length <= len(data):
            raise ValueError("a record longer than the header")
        key, _, value = data[:length].split(b" ", 1)[1].rstrip(b"\n").partition(b"=")
        yield key.decode(), value.decode("utf-8", "surrogateescape")
        data = data[length:]


@dataclass
class TarSample:
    """Files of an archive that belong together, as far as they are wanted.

    Args:
        name: Their path without extension.
        image, target: Where these are; None where there is none.
    """

    name: str
    image: TarMember | None = None
    target: TarMember | None = None


def samples_of(members: Iterable[TarMember], images: Sequence[str], targets: Sequence[str]) -> Iterator[TarSample]:
    """Groups files as webdataset does: those in a row whose paths are the same up to the first dot of the last part.

    Args:
        members: In the order of the archive.
        images, targets: Extensions, in lower case, without the first dot; of several files the first counts.

    Yields:
        The samples that have an image or a target.

    >>> files = [TarMember(name, 0, 1) for name in ("a/1.jpg", "a/1.cls", "a/2.jpg", "a/notes.txt", "a/.hidden.jpg")]
    >>> [(s.name, s.image is not None, s.target is not None) for s in samples_of(files, ["jpg"], ["cls"])]
    [('a/1', True, True), ('a/2', True, False)]
    """
    sample: TarSample | None = None
    for member in members:
        folder, slash, last = member.name.rpartition("/")
        stem, _, extension = last.partition(".")
        if not stem:
            continue
        name = folder + slash + stem
        if sample is None or sample.name != name:
            if sample is not None and (sample.image or sample.target):
                yield sample
            sample = TarSample(name)
        if extension.lower() in images and sample.image is None:
            sample.image = member
        elif extension.lower() in targets and sample.target is None:
            sample.target = member
    if sample is not None and (sample.image or sample.target):
        yield sample


def write_index(path: str, samples: Sequence[TarSample], first: int) -> None:
    """An index file, version 1.2, of one archive's samples; their components are called "image" and "target".

    In the place of a component's name stands its sample's number, from `first` on, which DALI hands back with the data. Names
    themselves may hold blanks, at which DALI would split them.
    """
    with open(path, "w") as file:
        file.write(f"v1.2 {len(samples)}\n")
        for number, sample in enumerate(samples, first):
            parts = [("image", sample.image), ("target", sample.target)]
            file.write(" ".join(f"{ext} {m.offset} {m.size} {number}" for ext, m in parts if m is not None) + "\n")
