"""What tar archives hold, beside what tarfile finds in them."""

import contextlib
import io
import tarfile
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssl import DecodeError
from fastssl.pipelines.tar_index import tar_members

LONG = "folder/" * 30 + "deep and long.jpg"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_those_that_tarfile_finds(tmp_path, form):
    names = ["a.jpg", "ä ö.jpg", "x/" * 60 + "y.jpg", *([] if form == tarfile.USTAR_FORMAT else [LONG])]
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for i, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 700 * i
            archive.addfile(info, io.BytesIO(bytes([i]) * 700 * i))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
        archive.addfile(link)
    with tarfile.open(path) as archive:
        want = [(m.name, m.offset_data, m.size) for m in archive if m.isfile()]
    assert [tuple(member) for member in tar_members(str(path))] == want and len(want) == len(names)


@pytest.mark.parametrize("size", ["-1", "-100000"])
def test_a_file_of_less_than_no_bytes_is_damage(tmp_path, size):
    """It would lead back into the archive, for ever."""
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers = {"size": size}
        archive.addfile(info)
    with pytest.raises(DecodeError, match="pax header at byte 512"):
        list(tar_members(str(tmp_path / "a.tar")))


@pytest.mark.parametrize("length", [1, 100, 124, 130, 511])
def test_an_archive_that_ends_within_a_header_is_named(tmp_path, length):
    (tmp_path / "a.tar").write_bytes(
        b"Not Found"[:length] if length < 100 else tarfile.TarInfo("a.jpg").tobuf()[:length]
    )
    with pytest.raises(DecodeError, match=r"a\.tar: no tar archive, .* from byte 0 on"):
        list(tar_members(str(tmp_path / "a.tar")))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.data())
def test_no_damage_to_an_archive_is_more_than_an_error(form, data):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name in (LONG, "a.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 600
            archive.addfile(info, io.BytesIO(bytes(600)))
    spoilt = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        spoilt[data.draw(st.integers(0, 4000))] = data.draw(st.integers(0, 255))
    del spoilt[data.draw(st.integers(1, len(spoilt))) :]
    for at in range(0, 4096, 512):  # with the checksum right again, damage goes deeper
        block = spoilt[at : at + 512]
        if data.draw(st.booleans()):
            total = sum(block) - sum(block[148:156]) + 256
            spoilt[at + 148 : at + 156] = b"%06o\0 " % total
    with tempfile.NamedTemporaryFile() as target:
        target.write(spoilt)
        target.flush()
        with contextlib.suppress(DecodeError):
            for member in tar_members(target.name):
                assert member.offset >= 0 and member.offset + member.size <= len(spoilt) and member.size >= 0
