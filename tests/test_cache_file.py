"""The cache in a file: whatever happens to it, there is a clear error or there are the right pixels."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import images
import pytest
import torch
from loading import RECIPE, Joined, Memory, joined, pictures

import fastssl
from fastssl._native import _C
from fastssl.data import CacheError, CacheInfo, DatasetSource, ImageFolder, Subset, build_cache, verify_cache
from fastssl.transforms.view import CenterCrop, View

N = 12
PICTURES = pictures(N)
# Where things are in a file; csrc/cpu/cache_file.cpp.
VERSION_AT, HASH_AT, STATE_AT, TABLE_AT = 8, 1088, 1096, 4096
ENTRY_BYTES, ENTRY_STATE_AT = 40, 28
BOOT_AT = STATE_AT + 4
DATA_AT = 8192
CLAIMED = 1
FULL = "decoding 1 of 3 channels, RGB; full size"


class Source(Memory):
    """Fails after the images that it has were fetched once; says what it is."""

    def __init__(self, items=PICTURES, name: str = "source") -> None:
        super().__init__(items)
        self.name = name
        self.fetched: list[int] = []

    def fetch(self, index: int):
        self.fetched.append(index)
        return super().fetch(index)

    def fingerprint(self) -> str:
        return self.name


def epoch(path: Path, source: object = None, **arguments: object) -> Joined:
    return joined(
        fastssl.Loader(Source() if source is None else source, RECIPE, batch_size=5, cache=path, threads=2, **arguments)
    )


PLAIN = joined(fastssl.Loader(Source(), RECIPE, batch_size=5, decode="full"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A complete cache of the source."""
    path = tmp_path / "pixels.cache"
    epoch(path)
    assert path.is_file() and os.listdir(tmp_path) == [path.name]
    return path


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def poke(path: Path, at: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def flip(path: Path, at: int, bit: int) -> None:
    with open(path, "rb") as file:
        file.seek(at)
        poke(path, at, bytes([file.read(1)[0] ^ (1 << bit)]))


def entry(path: Path, index: int) -> tuple[int, int]:
    """Offset and number of bytes of an image."""
    data = path.read_bytes()[TABLE_AT + ENTRY_BYTES * index :][:ENTRY_BYTES]
    height, width = int.from_bytes(data[16:20], "little"), int.from_bytes(data[20:24], "little")
    return int.from_bytes(data[:8], "little"), 3 * height * width


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_file_truncated_anywhere_is_refused(path):
    whole = path.read_bytes()
    offset, size = entry(path, 3)
    cuts = {0, 1, 7, 8, 12, 100, HASH_AT, STATE_AT, 1200, 4095, TABLE_AT, TABLE_AT + 1, TABLE_AT + 31, TABLE_AT + 50}
    cuts |= {
        DATA_AT - 1,
        DATA_AT,
        DATA_AT + 1,
        offset,
        offset + size - 1,
        offset + size,
        len(whole) // 2,
        len(whole) - 1,
    }
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        with pytest.raises(CacheError, match=r"pixels\.cache'.*(truncated|no cache of fastssl)"):
            epoch(path)
        assert path.read_bytes() == whole[:cut], "what is no cache must not be touched"
    path.write_bytes(whole + b"more")  # what comes behind is nobody's
    assert epoch(path) == PLAIN


def test_every_bit_of_header_and_table_is_guarded(path):
    """A flipped bit is an error, or in a place that says nothing; never other pixels."""
    random.seed(1)
    whole = path.read_bytes()
    refused = 0
    places = [*range(1200), *range(TABLE_AT, TABLE_AT + ENTRY_BYTES * N), *range(4000, TABLE_AT, 7)]
    for at in places:
        flip(path, at, random.randrange(8))
        try:
            loader = fastssl.Loader(Source(), RECIPE, batch_size=5, cache=path, threads=1)
        except CacheError as error:
            assert (str(path) in str(error) and "delete the file" in str(error)) or "take another path" in str(error)
            refused += 1
        else:
            assert not at >= TABLE_AT and not at < STATE_AT + 4, f"byte {at} is not guarded"
            if at % 16 == 0:
                assert joined(loader) == PLAIN
        poke(path, at, whole[at : at + 1])
    assert path.read_bytes() == whole
    assert refused > STATE_AT + ENTRY_BYTES * N


@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
def test_a_flipped_bit_of_a_pixel_is_an_error_at_its_first_use(path, policy):
    random.seed(2)
    whole = path.read_bytes()
    for index in (0, 5, N - 1):
        offset, size = entry(path, index)
        for at in (offset, offset + size - 1, offset + random.randrange(size)):
            flip(path, at, random.randrange(8))
            with pytest.raises(CacheError, match=rf"pixels\.cache'.* image {index} .*damaged.*delete the file"):
                epoch(path, on_error=policy)
            poke(path, at, whole[at : at + 1])
    assert epoch(path) == PLAIN


def test_verify_finds_what_is_damaged(path):
    info = verify_cache(path)
    assert info == CacheInfo(str(path), N, N, path.stat().st_size, FULL)
    for index in (3, 8):
        flip(path, entry(path, index)[0] + 40, 3)
    with pytest.raises(CacheError, match=rf"the pixels of 2 of {N} images are damaged .*the first of image 3"):
        verify_cache(path, threads=2)


def test_another_version_is_refused(path):
    poke(path, VERSION_AT, (77).to_bytes(4, "little"))
    with pytest.raises(CacheError, match=f"the form of version 77, this release reads version {_C.CACHE_VERSION}"):
        epoch(path)


def test_a_file_from_a_machine_of_other_endianness_is_refused(path):
    poke(path, VERSION_AT + 4, b"\1\2\3\4")
    with pytest.raises(CacheError, match="another order of bytes"):
        epoch(path)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG" * 5000, bytes(10_000)])
def test_a_foreign_file_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "pixels.cache"
    path.write_bytes(content)
    with pytest.raises(CacheError, match=r"pixels\.cache': this is no cache of fastssl; take another path"):
        epoch(path)
    assert path.read_bytes() == content and not part_of(path).exists()
    if any(content):
        part = part_of(path)
        path.rename(part)
        with pytest.raises(CacheError, match=r"pixels\.cache\.part': this is no cache of fastssl"):
            epoch(path)
        assert part.read_bytes() == content and not path.exists()


# --- another source, another rule -------------------------------------------------------------------------------------


def test_a_cache_of_another_source_is_refused(path):
    with pytest.raises(CacheError, match="made for a source of 12 samples, this one has 11"):
        epoch(path, Source(PICTURES[:11]))
    with pytest.raises(CacheError, match="made from another source, or from files that have changed"):
        epoch(path, Source(name="other"))
    assert epoch(path) == PLAIN


def test_a_part_of_another_source_is_refused(tmp_path):
    path = tmp_path / "pixels.cache"
    next(iter(fastssl.Loader(Source(), RECIPE, batch_size=2, cache=path)))
    with pytest.raises(CacheError, match=r"pixels\.cache\.part': it was made from another source"):
        epoch(path, Source(name="other"))
    assert epoch(path) == PLAIN


def test_a_changed_folder_is_noticed(make_folder, tmp_path):
    folder = make_folder({"cat": 3, "dog": 3})
    path = tmp_path / "pixels.cache"
    want = epoch(path, folder)
    picture = folder / "cat" / "cat_001.jpg"
    status, content = picture.stat(), picture.read_bytes()

    def refused() -> bool:
        with pytest.raises(CacheError, match="another source, or from files that have changed"):
            epoch(path, folder)
        return True

    picture.write_bytes(images.jpeg(images.photo(20, 20)))
    assert refused()
    picture.write_bytes(content)  # the same, but later
    assert refused()
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert epoch(path, folder) == want
    picture.rename(folder / "cat" / "cat_001b.jpg")
    assert refused()
    (folder / "cat" / "cat_001b.jpg").rename(picture)
    shutil.copytree(folder, tmp_path / "moved")  # names are those in the folder, and times are copied
    shutil.rmtree(folder)
    assert epoch(path, tmp_path / "moved") == want


def test_changed_contents_are_noticed_where_there_are_no_files(tmp_path):
    path = tmp_path / "pixels.cache"
    epoch(path, Memory(PICTURES))
    assert epoch(path, Memory(PICTURES)) == PLAIN
    for index in (0, N // 2, N - 1):
        other = [*PICTURES]
        other[index] = pictures(1, seed=9)[0]
        with pytest.raises(CacheError, match="contents or targets differ"):
            epoch(path, Memory(other))


def test_a_subset_has_a_cache_of_its_own(tmp_path):
    path = tmp_path / "pixels.cache"
    want = epoch(path, Subset(Source(), [1, 3, 5]))
    assert epoch(path, Subset(Source(), [1, 3, 5])) == want
    with pytest.raises(CacheError, match="made from another source"):
        epoch(path, Subset(Source(), [1, 3, 6]))


def test_a_cache_of_another_rule_is_refused(path):
    with pytest.raises(CacheError, match=f'another rule ."{FULL}", here ".*; as small as'):
        epoch(path, cache_size="recipe")


def test_labels_of_a_data_set_come_with_the_file(tmp_path):
    path = tmp_path / "pixels.cache"
    calls = []

    class Data:
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int):
            calls.append(index)
            return images.photo(30, 40, seed=index), 100 + index, f"name {index}"

    for _ in range(2):
        calls.clear()
        result = epoch(path, Data())
        assert result.targets.tolist() == [100 + i for i in result.indices.tolist()]
        assert result.filenames == [f"name {i}" for i in result.indices.tolist()]
    assert set(calls) <= {0, 4, 8}, "those of the fingerprint, and no other"


class Labelled:
    """A data set that counts what it is asked for."""

    def __init__(self, n: int = 20) -> None:
        self.n, self.calls = n, []

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int):
        self.calls.append(index)
        return images.photo(30, 40, seed=index), 100 + index, f"name {index} \u00fc\udc80"


def has_its_labels(result: Joined) -> bool:
    indices = result.indices.tolist()
    return result.targets.tolist() == [100 + i for i in indices] and result.filenames == [
        f"name {i} \u00fc\udc80" for i in indices
    ]


def test_labels_of_a_file_that_ranks_filled_together_are_all_there(tmp_path):
    path = tmp_path / "pixels.cache"
    ranks = [
        fastssl.Loader(
            DatasetSource(Labelled()),
            RECIPE,
            batch_size=5,
            drop_last=True,
            rank=r,
            world_size=2,
            cache=path,
            prefetch=0,
        )
        for r in range(2)
    ]
    for _ in range(4):
        for batches in zip(*ranks, strict=True):
            assert all(has_its_labels(joined([batch])) for batch in batches)
    for rank in ranks:  # each image was asked for once by one of them, and for the fingerprint by each
        assert len(rank.source.dataset.calls) < 20
    assert path.is_file()
    data = Labelled()
    for source in (data, Subset(DatasetSource(data), range(20))):
        data.calls.clear()
        assert has_its_labels(epoch(path, source)) and set(data.calls) == {0, 10, 19}


def test_labels_of_a_part_come_with_its_images(tmp_path):
    path = tmp_path / "pixels.cache"
    first = fastssl.Loader(Labelled(), RECIPE, batch_size=8, cache=path, prefetch=0, shuffle=False)
    next(iter(first))
    del first
    data = Labelled()
    assert has_its_labels(epoch(path, data)) and set(data.calls) == {0, *range(8, 20)}
    assert verify_cache(path).images == 20


def test_a_data_set_is_not_asked_for_what_the_file_has(tmp_path):
    """So that nothing it raises can come up outside of on_error."""
    path = tmp_path / "pixels.cache"
    epoch(path, Labelled())

    class Gone(Labelled):
        def __getitem__(self, index: int):
            if index not in (0, 10, 19):
                raise KeyError(index)
            return super().__getitem__(index)

    assert has_its_labels(epoch(path, Gone()))


@pytest.mark.parametrize("index", [0, 4, 8])
@pytest.mark.parametrize("what", ["target", "name"])
def test_a_relabelled_data_set_is_noticed_where_it_is_looked_at(tmp_path, index, what):
    path = tmp_path / "pixels.cache"
    data = [(images.photo(30, 40, seed=i), i, f"name {i}") for i in range(9)]
    want = epoch(path, data)
    image, target, name = data[index]
    data[index] = (image, 77, name) if what == "target" else (image, target, "other")
    with pytest.raises(CacheError, match="contents or targets differ"):
        epoch(path, data)
    data[index] = (image, target, name)
    assert epoch(path, data) == want


def test_labels_that_were_fetched_stay(tmp_path):
    """What the file says is for samples that are not fetched any more."""
    path = tmp_path / "pixels.cache"
    data = [(images.photo(30, 40, seed=i), i) for i in range(9)]
    epoch(path, data)
    source = DatasetSource([(image, target + (50 if target == 2 else 0)) for image, target in data])
    source.fetch(2)
    result = epoch(path, source)
    assert dict(zip(result.indices.tolist(), result.targets.tolist(), strict=True)) == {
        i: 52 if i == 2 else i for i in range(9)
    }


# --- broken off -------------------------------------------------------------------------------------------------------


def broken_off(path: Path, batches: int = 1) -> list[int]:
    """Leaves the part that a run leaves which is broken off, and says what is in it."""
    source = Source()
    for i, _ in enumerate(fastssl.Loader(source, RECIPE, batch_size=4, cache=path, prefetch=0, shuffle=False)):
        if i + 1 == batches:
            break
    assert part_of(path).is_file() and not path.exists()
    return source.fetched


def test_the_next_run_takes_up_what_was_stored(tmp_path):
    path = tmp_path / "pixels.cache"
    first, source = broken_off(path, 2), Source()
    assert sorted(first) == list(range(8))
    assert epoch(path, source) == PLAIN
    assert sorted(source.fetched) == [8, 9, 10, 11]
    assert os.listdir(tmp_path) == [path.name]
    verify_cache(path)


def test_a_file_that_is_being_filled_cannot_be_verified(tmp_path):
    path = tmp_path / "pixels.cache"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        verify_cache(path)
    broken_off(path)
    with pytest.raises(FileNotFoundError, match=r"pixels\.cache\.part' is there, which is filled but not complete"):
        verify_cache(path)


def test_what_a_killed_process_left_claimed_is_taken_up(tmp_path):
    path = tmp_path / "pixels.cache"
    broken_off(path)
    poke(part_of(path), TABLE_AT + ENTRY_BYTES * 9 + ENTRY_STATE_AT, bytes([CLAIMED]))
    source = Source()
    assert epoch(path, source) == PLAIN
    assert 9 in source.fetched and path.is_file()
    verify_cache(path)


@pytest.mark.parametrize("where", ["pixels", "offset", "height", "type", "hash", "state"])
def test_what_did_not_reach_the_disk_is_stored_again(tmp_path, where):
    """As after a loss of power: an entry of the part is there and its pixels are not, or the reverse."""
    path = tmp_path / "pixels.cache"
    broken_off(path, 2)
    part = part_of(path)
    poke(part, BOOT_AT, b"the boot before")
    at = TABLE_AT + ENTRY_BYTES * 5
    if where == "pixels":
        offset, size = entry(part, 5)
        poke(part, offset, bytes(size))
    else:
        poke(part, at + {"offset": 0, "hash": 8, "height": 16, "type": 26, "state": 28}[where], b"\0\0")
    source = Source()
    assert epoch(path, source) == PLAIN and epoch(path, source) == PLAIN
    assert 5 in source.fetched
    verify_cache(path)


def test_what_did_not_reach_the_disk_is_not_taken_for_stored(path):
    """By their entries all images are; a run that asks for few of them must not complete the file."""
    part = part_of(path)
    path.rename(part)
    poke(part, STATE_AT, b"\0")  # filling
    poke(part, BOOT_AT, b"the boot before")
    offset, size = entry(part, 11)
    poke(part, offset, bytes(size))
    source = Source()
    next(iter(fastssl.Loader(source, RECIPE, batch_size=4, cache=path, prefetch=0, shuffle=False)))
    assert not source.fetched and part.exists() and not path.exists(), "it was completed without image 11"
    assert epoch(path, source) == PLAIN and source.fetched == [11]
    verify_cache(path)


@pytest.mark.parametrize("policy", ["raise", "replace"])
def test_damage_of_a_part_is_an_error(tmp_path, policy):
    """While the same machine runs, nothing is lost: somebody wrote into it."""
    path = tmp_path / "pixels.cache"
    broken_off(path, 2)
    part = part_of(path)
    flip(part, entry(part, 5)[0] + 3, 2)
    for _ in range(2):
        with pytest.raises(
            CacheError, match=r"pixels\.cache\.part': the pixels of image 5 are damaged.*delete the file"
        ):
            joined(fastssl.Loader(Source(), RECIPE, batch_size=N, cache=path, on_error=policy))
        assert part.exists() and not path.exists()
    part.unlink()
    assert epoch(path) == PLAIN


def test_a_truncated_part_gives_the_right_pixels_or_an_error(tmp_path):
    path = tmp_path / "pixels.cache"
    broken_off(path, 2)
    part = part_of(path)
    whole = part.read_bytes()
    for cut in (
        0,
        5,
        900,
        HASH_AT + 3,
        1130,
        4096,
        TABLE_AT + 70,
        DATA_AT - 1,
        DATA_AT,
        DATA_AT + 5000,
        len(whole) - 1,
    ):
        part.write_bytes(whole[:cut])
        path.unlink(missing_ok=True)
        try:
            got = epoch(path)
        except CacheError as error:
            assert str(part) in str(error) and 0 < cut < DATA_AT
            assert part.read_bytes() == whole[:cut]
        else:
            assert got == PLAIN and epoch(path) == PLAIN
            verify_cache(path)


def test_a_part_that_was_complete_but_for_its_name_is_taken(path):
    path.rename(part_of(path))
    source = Source()
    assert epoch(path, source) == PLAIN
    assert not source.fetched and path.is_file() and not part_of(path).exists()


def test_an_empty_part_beside_a_complete_file_does_no_harm(path):
    part_of(path).touch()
    assert epoch(path) == PLAIN


SCRIPT = """
import os, signal, sys, time
import fastssl
from loading import RECIPE, Memory, joined, pictures
from fastssl.data import CacheError
N = 12
class Source(Memory):
    def fingerprint(self):
        return "source"
"""


@pytest.mark.parametrize("at", [0, 1, 7, 11])
def test_a_killed_process_leaves_no_wrong_file(nursery, tmp_path, at):
    path = tmp_path / "pixels.cache"
    done = nursery.run(
        SCRIPT
        + """
class Killing(Source):
    def fetch(self, index):
        if index == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fetch(index)
joined(fastssl.Loader(Killing(pictures(N)), RECIPE, batch_size=4, cache=sys.argv[1], shuffle=False, threads=2))
""",
        path,
        at,
    )
    assert done.returncode == -signal.SIGKILL and not path.exists()
    source = Source()
    assert epoch(path, source) == PLAIN and epoch(path, source) == PLAIN
    assert at in source.fetched and path.is_file() and not part_of(path).exists()
    verify_cache(path)


def test_processes_that_are_killed_at_any_time_leave_no_wrong_file(nursery, tmp_path):
    """Two at a time fill the file and remove it again, until they are killed; then one that ends gives the right pixels."""
    done = nursery.run(
        SCRIPT
        + textwrap.dedent("""
        from fastssl.data import verify_cache
        path = sys.argv[1]
        class Slow(Source):
            def fetch(self, index):
                time.sleep(0.001)
                return super().fetch(index)
        def fill():
            for seed in range(100_000):
                try:
                    joined(fastssl.Loader(Slow(pictures(N)), RECIPE, batch_size=3, threads=3, cache=path, seed=seed))
                except CacheError as error:  # the other one removed it
                    assert "removed while it was filled" in str(error), error
                for name in (path, path + ".part"):
                    if seed % 3 == 2 and os.path.exists(name):
                        try:
                            os.remove(name)
                        except FileNotFoundError:
                            pass
        children = []
        for round in range(12):
            for _ in range(2):
                child = os.fork()
                if child == 0:
                    try:
                        fill()
                    finally:
                        os._exit(7)
                children.append(child)
            time.sleep(0.05 + 0.02 * round)
            for child in children[-2:]:
                os.kill(child, signal.SIGKILL)
            for child in children[-2:]:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, "it saw an error"
        check = os.fork()  # so that none is forked while there are threads
        if check == 0:
            want = joined(fastssl.Loader(Source(pictures(N)), RECIPE, batch_size=5, decode="full"))
            assert joined(fastssl.Loader(Source(pictures(N)), RECIPE, batch_size=5, cache=path)) == want, "other pixels"
            verify_cache(path)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(check, 0)[1]) == 0
        """),
        tmp_path / "pixels.cache",
    )
    done.check()


def _start(script: str, *arguments: object) -> subprocess.Popen:
    here = str(Path(__file__).parent)
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)])},
    )


def test_two_processes_fill_one_file_and_share_it(tmp_path):
    path = tmp_path / "pixels.cache"
    script = SCRIPT + textwrap.dedent("""
        class Slow(Source):
            fetched = 0
            def fetch(self, index):
                time.sleep(0.005)
                Slow.fetched += 1
                return super().fetch(index)
        plain = fastssl.Loader(Source(pictures(N)), RECIPE, batch_size=5, seed=int(sys.argv[2]), decode="full")
        want = [joined(plain) for _ in range(6)]
        print("ready", flush=True)
        while not os.path.exists(sys.argv[1] + ".go"):
            time.sleep(0.001)
        loader = fastssl.Loader(Slow(pictures(N)), RECIPE, batch_size=5, seed=int(sys.argv[2]), threads=2, cache=sys.argv[1])
        assert [joined(loader) for _ in range(6)] == want, "other pixels"
        print(Slow.fetched, loader.stats()["cache"]["images"])
    """)
    both = [_start(script, path, seed) for seed in (1, 2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    Path(f"{path}.go").touch()
    said = [process.communicate(timeout=60)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert N <= sum(int(fetched) for fetched, _ in said) < 2 * N, "they do not share"
    assert [int(n) for _, n in said] == [N, N]
    assert sorted(os.listdir(tmp_path)) == [path.name, f"{path.name}.go"]
    source = Source()
    assert epoch(path, source) == PLAIN and not source.fetched
    verify_cache(path)


def test_a_part_that_another_machine_fills_is_left_alone(tmp_path):
    path = tmp_path / "pixels.cache"
    there = fastssl.Loader(Source(), RECIPE, batch_size=4, cache=path, prefetch=0)
    next(iter(there))
    before = part_of(path).read_bytes()
    poke(part_of(path), STATE_AT + 4, b"another boot")
    source = Source()
    here = fastssl.Loader(source, RECIPE, batch_size=5, cache=path)
    assert joined(here) == PLAIN and len(source.fetched) == N
    assert "another machine is filling" in here.stats()["cache"]["advice"]
    assert part_of(path).read_bytes()[1200:] == before[1200:]
    joined(there)
    assert path.is_file()
    here.set_epoch(0)
    assert joined(here) == PLAIN and len(source.fetched) == N and here.stats()["cache"]["images"] == N


def test_a_file_removed_while_it_is_used_does_no_harm(path):
    loader = fastssl.Loader(Source(), RECIPE, batch_size=5, cache=path)
    path.unlink()
    assert joined(loader) == PLAIN
    part = fastssl.Loader(Source(), RECIPE, batch_size=5, cache=path)
    part_of(path).unlink()
    with pytest.raises(CacheError, match="removed while it was filled"):
        joined(part)
    assert not path.exists()


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_file_that_is_complete_without_some_images_says_so(tmp_path):
    """Also to a run whose own limit would allow all: what it is told must help."""
    path, source = tmp_path / "pixels.cache", Source([*PICTURES, b"nothing"])
    limit = DATA_AT + 20_000
    joined(fastssl.Loader(source, RECIPE, cache=path, cache_bytes=limit, on_error="skip"))
    assert path.is_file() and limit - 5000 < path.stat().st_size <= limit + 64
    for more in (limit, 10**9, None):
        source.fetched.clear()
        loader = fastssl.Loader(source, RECIPE, cache=path, cache_bytes=more, on_error="skip")
        joined(loader)
        stats = loader.stats()["cache"]
        assert 0 < stats["images"] < N and stats["left_out"] == N - stats["images"]
        assert len(source.fetched) == N + 1 - stats["images"]
        assert f"{stats['left_out']} did not fit into the cache_bytes with which it was filled" in stats["advice"]
        assert "delete it" in stats["advice"]
    path.unlink()
    loader = fastssl.Loader(source, RECIPE, cache=path, on_error="skip")
    joined(loader)
    assert loader.stats()["cache"]["advice"] == "all images are kept but 1, which could not be decoded"


def test_a_part_takes_what_did_not_fit_when_its_limit_is_raised(tmp_path):
    path = tmp_path / "pixels.cache"
    first = fastssl.Loader(
        Source(), RECIPE, batch_size=10, cache=path, cache_bytes=DATA_AT + 20_000, shuffle=False, prefetch=0
    )
    next(iter(first))
    stats = first.stats()["cache"]
    assert 0 < stats["images"] < 10 and stats["left_out"] == 10 - stats["images"] and part_of(path).exists()
    assert f"fit into cache_bytes={DATA_AT + 20_000}" in stats["advice"]
    del first
    source = Source()
    assert epoch(path, source) == PLAIN and len(source.fetched) == N - stats["images"]
    assert verify_cache(path).images == N


# --- places -----------------------------------------------------------------------------------------------------------


def test_wrong_places_are_named(tmp_path):
    with pytest.raises(CacheError, match=r"none/pixels\.cache': there is no such folder; make it first"):
        epoch(tmp_path / "none" / "pixels.cache")
    with pytest.raises(CacheError, match="it is a folder; give the name of a file"):
        epoch(tmp_path)
    part_of(tmp_path / "a").mkdir()
    with pytest.raises(CacheError, match=r"a\.part': it is a folder, where the cache is to be filled"):
        epoch(tmp_path / "a")
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="cannot open: Not a directory"):
        epoch(tmp_path / "file" / "b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CacheError, match="it is not a regular file"):
        epoch(tmp_path / "pipe")
    os.mkfifo(part_of(tmp_path / "c"))
    with pytest.raises(CacheError, match="not a regular file"):
        epoch(tmp_path / "c")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which even root makes no file")
def test_a_folder_that_cannot_be_written_to_is_named():
    with pytest.raises(CacheError, match=r"/proc/self/pixels\.cache': .*(cannot make|no such folder)"):
        epoch(Path("/proc/self/pixels.cache"))


def test_a_complete_file_can_be_read_where_nothing_can_be_written(path):
    os.chmod(path, 0o400)
    os.chmod(path.parent, 0o500)
    try:
        assert epoch(path) == PLAIN
    finally:
        os.chmod(path.parent, 0o700)


def test_a_relative_path_is_of_the_folder_where_the_loader_was_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loader = fastssl.Loader(Source(), RECIPE, batch_size=5, cache="pixels.cache")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert joined(loader) == PLAIN
    assert (tmp_path / "pixels.cache").is_file() and not os.listdir(tmp_path / "other")


@pytest.mark.parametrize("room", [3000, 8192, 20_000])
def test_a_full_disk_is_an_error_and_leaves_nothing(nursery, tmp_path, room):
    """A limit on the size of files stands for it: write fails in the same way."""
    done = nursery.run(
        SCRIPT
        + """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
for policy in ("raise", "skip", "replace"):
    try:
        loader = fastssl.Loader(Source(pictures(N)), RECIPE, batch_size=3, cache=sys.argv[1], threads=2, on_error=policy)
        joined(loader)
    except CacheError as error:
        print(error)
    assert not os.listdir(os.path.dirname(sys.argv[1])), "something was left behind"
""",
        tmp_path / "pixels.cache",
        room,
    )
    lines = done.check().stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert "pixels.cache': cannot write" in line and "bytes" in line and "File too large" in line
        if room > DATA_AT:
            assert "all need about" in line and "What was written is removed" in line


def test_a_process_that_shares_a_part_hears_of_the_full_disk(nursery, tmp_path):
    """The other one's error, and no pixels from a file that was cut."""
    done = nursery.run(
        SCRIPT
        + """
import resource
first = fastssl.Loader(Source(pictures(N)), RECIPE, batch_size=3, cache=sys.argv[1], prefetch=0)
second = fastssl.Loader(Source(pictures(N)), RECIPE, batch_size=3, cache=sys.argv[1], prefetch=0)
iterations = iter(first), iter(second)
next(iterations[0])
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
for iteration in iterations:
    try:
        for _ in iteration:
            pass
    except CacheError as error:
        print(error)
assert not os.listdir(os.path.dirname(sys.argv[1]))
""",
        tmp_path / "pixels.cache",
    )
    first, second = done.check().stdout.splitlines()
    assert "cannot write" in first and "another process that filled it could not write" in second


# --- made ahead -------------------------------------------------------------------------------------------------------


def test_build_cache_decodes_each_image_once(tmp_path):
    path, source, seen = tmp_path / "pixels.cache", Source(pictures(150)), []
    info = build_cache(source, path, threads=2, progress=lambda done, of: seen.append((done, of)))
    assert info == CacheInfo(str(path), 150, 150, path.stat().st_size, FULL)
    assert sorted(source.fetched) == list(range(150))
    assert seen == sorted(seen) and seen[-1] == (150, 150) and len(seen) >= 3
    assert build_cache(source, path) == info and len(source.fetched) == 150
    plain = joined(fastssl.Loader(source, RECIPE, decode="full"))
    source.fetched.clear()
    assert joined(fastssl.Loader(source, RECIPE, cache=path)) == plain and not source.fetched


PHOTOS = [images.jpeg(images.photo(300 + 10 * i, 400, seed=i)) for i in range(5)]


@pytest.mark.parametrize("sizes", [(20,), (60,), (150,), (20, 60), (60, 20, 150)])
def test_build_cache_keeps_images_as_small_as_a_loader_of_the_recipe_does(tmp_path, sizes):
    recipe = tuple(View(crop=CenterCrop(size=size, keep=1.0)) for size in sizes)
    source = Source(PHOTOS)

    def views(path: Path) -> Joined:
        return joined(fastssl.Loader(source, recipe, batch_size=3, cache=path, cache_size="recipe", threads=1))

    filled = views(tmp_path / "filled")
    info = build_cache(source, tmp_path / "built", recipe=recipe, threads=1)
    assert views(tmp_path / "built") == filled == views(tmp_path / "filled")
    shrink = {20: 8, 60: 4, 150: 2}[max(sizes)]
    pixels = sum(3 * -(-(300 + 10 * i) // shrink) * (400 // shrink) for i in range(5))
    assert pixels <= info.bytes <= pixels + DATA_AT + 64 * 8 and info.bytes == (tmp_path / "filled").stat().st_size


def test_build_cache_takes_up_a_part(tmp_path):
    path, source = tmp_path / "pixels.cache", Source()
    broken_off(path)
    assert build_cache(source, path).images == N
    assert sorted(source.fetched) == list(range(4, N))


def test_build_cache_lists_what_cannot_be_decoded(tmp_path):
    source = Source([*PICTURES, b"nothing", PICTURES[0][:300]])
    with pytest.raises(fastssl.DecodeError, match="memory/12"):
        build_cache(source, tmp_path / "a")
    done = []
    info = build_cache(source, tmp_path / "a", on_error="skip", progress=lambda n, of: done.append(n))
    assert info.images == N and info.samples == N + 2 and [f.index for f in info.faults] == [12, 13]
    assert done[-1] == N + 2
    assert verify_cache(tmp_path / "a").images == N


def test_build_cache_overwrites_only_if_told(path):
    source = Source(pictures(N, seed=4), name="other")
    with pytest.raises(CacheError, match="another source"):
        build_cache(source, path)
    assert epoch(path) == PLAIN
    build_cache(source, path, overwrite=True)
    assert epoch(path, source) == joined(fastssl.Loader(source, RECIPE, batch_size=5, decode="full"))


def test_build_cache_names_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="on_error='replace'"):
        build_cache(Source(), tmp_path / "a", on_error="replace")
    with pytest.raises(ValueError, match="path='ram'"):
        build_cache(Source(), "ram")


def test_nothing_stays_open(path, tmp_path):
    before = len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count("pixels")
    for name in ("pixels.cache", "b.pixels"):
        epoch(tmp_path / name)
        loader = fastssl.Loader(folder_of(tmp_path), RECIPE, batch_size=5, cache=tmp_path / f"{name}.2")
        next(iter(loader))
        del loader
    assert (len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count("pixels")) == before


def folder_of(folder: Path) -> ImageFolder:
    (folder / "images").mkdir(exist_ok=True)
    for i, data in enumerate(PICTURES):
        (folder / "images" / f"{i}.jpg").write_bytes(data)
    return ImageFolder(folder / "images")


def test_an_image_of_a_part_is_that_of_its_pixels(tmp_path):
    """Found while the file is being filled, by a copy, not by a map."""
    path = tmp_path / "pixels.cache"
    loader = fastssl.Loader(Source(), RECIPE, batch_size=4, cache=path, shuffle=False, drop_last=True, prefetch=0)
    one = fastssl.Loader(Source(PICTURES), RECIPE, batch_size=5, drop_last=True, seed=4, decode="full")
    want = joined(one)
    next(iter(loader))
    again = fastssl.Loader(Source(), RECIPE, batch_size=5, cache=path, drop_last=True, seed=4)
    assert joined(again) == want and not path.exists()  # two samples are still not stored
    assert again.stats()["cache"]["hits"] > 0 and torch.isfinite(want.views[0]).all()
