"""DALI as the decoder of a Loader: on the CPU by its CPU backend, on a GPU by its mixed one."""

import gc
import importlib.util
import sys
import threading
import time
import weakref

import images
import numpy as np
import pytest
import torch
from conftest import devices
from slow_streams import SlowStreams, on_host
from test_bad_input import BAD, UNUSUAL
from test_leaks import forks_beside_threads

import fastssl
from fastssl import Loader, ops, recipes
from fastssl.data import BytesCollate, ImageFolder
from fastssl.pipelines import DaliDecoder, choose
from fastssl.pipelines.dali import why_not_dali_on
from fastssl.pipelines.dali_modules import why_not_dali
from fastssl.pipelines.decoder import LeftImage

pytestmark = pytest.mark.skipif(why_not_dali() is not None, reason=str(why_not_dali()))

CPU = torch.device("cpu")
# Of the two JPEG decoders: none on the CPU, where both are libjpeg-turbo. nvJPEG's inverse transform and colours are floats.
LEVELS = {"cpu": 0, "cuda": 4}


def left(data, position=0, window=None):
    """A JPEG as the engine leaves it to a decoder."""
    height, width = images.rgb(data).shape[:2]
    return LeftImage(position, tensor_of(data), height, width, window or (0, 0, height, width))


def tensor_of(data):
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())


def pixels_of(decoded):
    """What lies at the address that is handed on, without a copy by DALI."""
    tensor = torch.utils.dlpack.from_dlpack(decoded.owner)
    assert tensor.data_ptr() == decoded.address and tensor.shape == (decoded.rows, decoded.columns, 3)
    assert decoded.stride == 3 * decoded.columns and decoded.plane == 0 and tensor.is_contiguous()
    return tensor


def assert_decoded(image, decoded, levels=0):
    pixels, (top, left, rows, columns) = pixels_of(decoded), decoded[3:7]
    asked_top, asked_left, asked_rows, asked_columns = image.window
    assert top <= asked_top and top + rows >= asked_top + asked_rows, "the window lies within what is decoded"
    assert left <= asked_left and left + columns >= asked_left + asked_columns
    want = ops.decode(image.data)[top : top + rows, left : left + columns].int()
    assert (pixels.cpu().int() - want).abs().max() <= levels


KINDS = {
    "4:4:4": images.jpeg(images.photo(61, 83), subsampling=0),
    "4:2:2": images.jpeg(images.photo(61, 83), subsampling=1),
    "4:2:0": images.jpeg(images.photo(61, 83), subsampling=2),
    "noise": images.jpeg(images.noise(40, 37), subsampling=2),
    "gray": images.jpeg(images.photo(50, 40)[:, :, 0]),
    "restarts": images.jpeg(images.photo(61, 83), restart_marker_blocks=2),
    "turned": images.jpeg(images.photo(61, 83), orientation=6),
    "one pixel": images.jpeg(images.flat(1, 1)),
    "wide": images.jpeg(images.noise(10, 3000)),
    "tall": images.jpeg(images.noise(3000, 10)),
}


@pytest.mark.parametrize("device", devices())
def test_pixels_are_those_of_the_cpu(device, rng):
    """Any window of any kind of JPEG, in the order of the call; EXIF orientations are left alone."""
    decoder = DaliDecoder(torch.device(device), 64, 2)
    for _ in range(3):
        batch = []
        for data in KINDS.values():
            height, width = images.rgb(data).shape[:2]
            top, start = int(rng.integers(0, height)), int(rng.integers(0, width))
            window = (top, start, int(rng.integers(1, height - top + 1)), int(rng.integers(1, width - start + 1)))
            batch += [left(data, len(batch)), left(data, len(batch) + 1, window)]
        for image, decoded in zip(batch, decoder.decode(batch), strict=True):
            assert_decoded(image, decoded, LEVELS[device])


def test_only_the_window_is_decoded_on_the_cpu():
    (decoded,) = DaliDecoder(CPU, 1, 1).decode([left(KINDS["4:2:0"], window=(5, 7, 30, 20))])
    assert decoded[3:7] == (5, 7, 30, 20)


@pytest.mark.parametrize("device", devices())
def test_memory_is_not_used_again_while_somebody_holds_it(device):
    decoder = DaliDecoder(torch.device(device), 16, 2)
    batch = [left(data, i) for i, data in enumerate(KINDS.values())]
    held = decoder.decode(batch)
    others = [left(images.jpeg(images.noise(90, 90, seed=i)), i) for i in range(16)]
    for _ in range(6):
        assert None not in decoder.decode(others)
    del decoder
    gc.collect()
    for image, decoded in zip(batch, held, strict=True):
        assert_decoded(image, decoded, LEVELS[device])


def test_a_batch_may_be_larger_than_was_said():
    decoder = DaliDecoder(CPU, 2, 1)
    for count in (1, 2, 7, 3, 9):
        batch = [left(KINDS["4:2:0"], i) for i in range(count)]
        for image, decoded in zip(batch, decoder.decode(batch), strict=True):
            assert_decoded(image, decoded)
    assert decoder.decode([]) == []


def broken(data):
    """Headers that promise what does not follow, in a file that begins and ends as it must."""
    start = data.index(b"\xff\xda")
    return data[: start + 2] + b"\0\3\1" + bytes(60) + b"\xff\xd9"


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("bad", [(0,), (3,), (0, 1), (2, 3, 9), tuple(range(10))], ids=str)
def test_of_a_batch_that_fails_only_the_images_at_fault_are_missing(device, bad):
    decoder = DaliDecoder(torch.device(device), 16, 2)
    batch = [left(images.jpeg(images.photo(40 + i, 50, seed=i)), i) for i in range(10)]
    for _ in range(2):  # the pipeline lives on
        got = decoder.decode(spoilt(batch, bad))
        assert [i for i, decoded in enumerate(got) if decoded is None] == list(bad)
        for image, decoded in zip(batch, decoder.decode(batch), strict=True):
            assert_decoded(image, decoded, LEVELS[device])
        for image, decoded in zip(batch, got, strict=True):
            if decoded is not None:
                assert_decoded(image, decoded, LEVELS[device])


def test_an_image_of_another_size_than_its_header_said_is_none():
    image = left(KINDS["4:2:0"])
    assert DaliDecoder(CPU, 1, 1).decode([image._replace(window=(0, 0, image.height + 8, image.width))]) == [None]


@pytest.mark.parametrize("message, error", [
    ("Critical error in pipeline: CUDA allocation failed", torch.OutOfMemoryError),
    ("Can't allocate 4096 bytes on device 0.", torch.OutOfMemoryError),
    ("Failed to decode sample #3", None),
])  # fmt: skip
def test_what_the_device_is_at_fault_for_is_raised(monkeypatch, message, error):
    decoder = DaliDecoder(CPU, 4, 1)
    batch = [left(KINDS["4:2:0"], i) for i in range(3)]
    decoder.decode(batch)

    def fail(*_):
        raise RuntimeError(message)

    monkeypatch.setattr(decoder._pipeline, "share_outputs", fail)
    if error is not None:
        with pytest.raises(error, match="DALI"):
            decoder.decode(batch)
    else:
        assert decoder.decode(batch) == [None] * 3
        assert None not in decoder.decode(batch), "a pipeline that can decode nothing is followed by another"


def test_a_call_that_is_broken_off_leaves_nothing_to_the_next(monkeypatch):
    """Ctrl-C after DALI has begun: its pixels must not be taken for those of the call after."""
    decoder, batch = DaliDecoder(CPU, 4, 1), [left(KINDS["4:2:0"], i) for i in range(3)]
    decoder.decode(batch)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(decoder._pipeline, "share_outputs", interrupt)
        decoder.decode([left(images.jpeg(images.noise(61, 83)), i) for i in range(3)])
    for image, decoded in zip(batch, decoder.decode(batch), strict=True):
        assert_decoded(image, decoded)


def spoilt(batch, bad):
    return [
        image._replace(data=tensor_of(broken(bytes(image.data.numpy())))) if image.position in bad else image
        for image in batch
    ]


@pytest.mark.parametrize("device", devices())
def test_two_batches_under_way_are_as_if_they_came_one_by_one(device):
    """Images at fault in either, or both: the others lose nothing, and the pipeline lives on."""
    decoder = DaliDecoder(torch.device(device), 8, 2)
    batches = [[left(images.jpeg(images.photo(40 + k, 50 + i, seed=i)), i) for i in range(5)] for k in range(12)]
    at_fault = [(), (), (1,), (), (0, 4), (2,), (), (), (3,), (), (), (0,)]
    given = [spoilt(batch, bad) for batch, bad in zip(batches, at_fault, strict=True)]
    decoder.start(given[0])
    pipeline, held = decoder._pipeline, []
    for k in range(12):
        if k < 11:
            decoder.start(given[k + 1])
        held.append(decoder.finish())
    assert decoder._pipeline is pipeline
    for batch, bad, got in zip(batches, at_fault, held, strict=True):
        assert [i for i, decoded in enumerate(got) if decoded is None] == list(bad)
        for image, decoded in zip(batch, got, strict=True):
            if decoded is not None:
                assert_decoded(image, decoded, LEVELS[device])


def test_a_batch_in_which_nothing_can_be_decoded_takes_none_with_it():
    decoder = DaliDecoder(CPU, 8, 2)
    batch = [left(KINDS["4:2:0"], i) for i in range(3)]
    decoder.start(spoilt(batch, (0, 1, 2)))
    decoder.start(batch)
    assert decoder.finish() == [None] * 3
    decoder.start(batch)
    for _ in range(2):
        for image, decoded in zip(batch, decoder.finish(), strict=True):
            assert_decoded(image, decoded)


def test_a_larger_batch_may_come_while_another_is_under_way():
    decoder = DaliDecoder(CPU, 2, 1)
    small, large = ([left(KINDS["4:2:0"], i) for i in range(count)] for count in (2, 9))
    decoder.start(small)
    decoder.start(large)
    for batch in (small, large):
        for image, decoded in zip(batch, decoder.finish(), strict=True):
            assert_decoded(image, decoded)


@pytest.mark.parametrize("message, ends", [("cannot begin", None), ("out of memory", torch.OutOfMemoryError)])
def test_a_batch_that_cannot_be_begun_takes_none_with_it(monkeypatch, message, ends):
    decoder = DaliDecoder(CPU, 4, 1)
    batch = [left(KINDS["4:2:0"], i) for i in range(3)]
    decoder.start(batch)

    def fail(*_):
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        patch.setattr(decoder._pipeline, "schedule_run", fail)
        decoder.start(batch)
    for image, decoded in zip(batch, decoder.finish(), strict=True):
        assert_decoded(image, decoded)
    if ends is not None:
        with pytest.raises(ends, match="DALI"):
            decoder.finish()
        decoder.start(batch)
    for image, decoded in zip(batch, decoder.finish(), strict=True):
        assert_decoded(image, decoded)


def test_for_want_of_memory_one_batch_fails_and_the_next_does_not(monkeypatch):
    decoder = DaliDecoder(CPU, 4, 1)
    batch = [left(KINDS["4:2:0"], i) for i in range(3)]
    decoder.start(batch)
    decoder.start(batch)
    share, calls = decoder._pipeline.share_outputs, []

    def fail_once(stream):
        outputs = share(stream)
        calls.append(1)
        if len(calls) == 1:
            decoder._pipeline.release_outputs()
            raise RuntimeError("CUDA allocation failed")
        return outputs

    monkeypatch.setattr(decoder._pipeline, "share_outputs", fail_once)
    with pytest.raises(torch.OutOfMemoryError, match="DALI"):
        decoder.finish()
    for image, decoded in zip(batch, decoder.finish(), strict=True):
        assert_decoded(image, decoded)


def test_what_was_begun_and_nobody_finished_is_not_taken_for_what_follows():
    decoder, batch = DaliDecoder(CPU, 4, 1), [left(KINDS["4:2:0"], i) for i in range(3)]
    for _ in range(2):
        decoder.start([left(images.jpeg(images.noise(61, 83)), i) for i in range(3)])
    for image, decoded in zip(batch, decoder.decode(batch), strict=True):
        assert_decoded(image, decoded)


def test_other_threads_go_on_while_it_decodes():
    data = images.jpeg(images.photo(300, 400))
    decoder, batch = DaliDecoder(CPU, 64, 1), [left(data, i) for i in range(32)]
    decoder.decode(batch)
    ticks, over = [], threading.Event()

    def tick():
        while not over.is_set():
            ticks.append(1)
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    before = len(ticks)
    for _ in range(3):
        decoder.decode(batch)
    during = len(ticks) - before
    over.set()
    thread.join()
    assert during > 10, "DALI holds Python's lock while it decodes"


# --- a Loader that leaves images to it ----------------------------------------------------------------------------------


def assert_same(got, want):
    got, want = list(got), list(want)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.filenames == b.filenames and torch.equal(a.targets, b.targets)
        assert torch.equal(a.params.data, b.params.data)
        for view, wanted in zip(a.views, b.views, strict=True):
            assert view.stride() == wanted.stride() and torch.equal(view, wanted)


def small(name):
    """A recipe with views of few pixels."""
    recipe = recipes.box_blur(recipes.simclr(16)) if name == "box_blur" else getattr(recipes, name)()
    return tuple(view.with_(crop=view.crop.__class__(**{**vars(view.crop), "size": 16})) for view in recipe)


@pytest.mark.parametrize(
    "name", ["simclr", "dino", "wmse", "fda"]
)  # also of several sizes, in another order, with a step of its own
def test_views_are_those_of_the_cpu(photos, name):
    source, recipe = ImageFolder(photos / "owl"), small(name)
    loader = on_host(Loader(source, recipe, batch_size=4), DaliDecoder(CPU, 4, 1))
    torch.manual_seed(0)  # for steps of the recipe's own
    got = list(loader)
    torch.manual_seed(0)
    assert_same(got, Loader(source, recipe, batch_size=4, decode="full"))
    assert loader.stats()["decoding"]["device_images"] == len(source)


@pytest.mark.parametrize("share, options", [
    (0.5, {"epochs": 3, "dtype": torch.bfloat16, "channels_last": True}),
    (1.0, {"prefetch": 0, "shuffle": False}),
    (0.3, {"prefetch": 4, "drop_last": True}),
], ids=str)  # fmt: skip
def test_a_share_of_each_batch(photos, share, options):
    source = ImageFolder(photos)
    options |= {"batch_size": 7, "decode": "full"}
    loader = on_host(Loader(source, recipes.simclr(16), **options), DaliDecoder(CPU, 7, 2), share)
    assert_same(loader, Loader(source, recipes.simclr(16), **options))


@pytest.fixture
def everything(tmp_path):
    """Files of every kind, good and bad, and what becomes of them after they were listed."""
    for name, data in UNUSUAL.items():
        (tmp_path / name).write_bytes(data)
    for i, data in enumerate(KINDS.values()):
        (tmp_path / f"good {i}.jpg").write_bytes(data)
    data = images.jpeg(images.photo(90, 70))
    (tmp_path / "progressive.jpg").write_bytes(images.jpeg(images.photo(90, 70), progressive=True))
    (tmp_path / "sixteen bits.png").write_bytes(images.png_of_sixteen_bits(images.photo(9, 9).astype(np.uint16) * 257))
    (tmp_path / "huge.jpg").write_bytes(with_size(data, 65500, 65500))
    (tmp_path / "broken.jpg").write_bytes(broken(data))
    (tmp_path / "headless.jpg").write_bytes(data[:2] + data[data.index(b"\xff\xda") :])
    for name in BAD:
        (tmp_path / f"{name}.jpg").write_bytes(data)
    source = ImageFolder(tmp_path)
    for name, spoil in BAD.items():
        spoil(tmp_path / f"{name}.jpg")
    return source


def with_size(data, height, width):
    """The same JPEG, whose header speaks of another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")  # Pillow's
@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_every_failure_has_the_same_end_as_on_the_cpu(everything, policy):
    options = {"batch_size": 5, "on_error": policy, "epochs": 2, "decode": "full"}
    want = Loader(everything, recipes.simclr(16), **options)
    loader = on_host(Loader(everything, recipes.simclr(16), **options), DaliDecoder(CPU, 5, 1))
    assert_same(loader, want)
    assert [str(fault) for fault in loader.errors] == [str(fault) for fault in want.errors]
    assert len(want.errors) >= len(BAD) + 2
    assert loader.stats()["decoding"]["device_images"] > 2 * len(KINDS)


def test_a_failure_that_is_to_be_raised_names_the_file(everything):
    loader = on_host(Loader(everything, recipes.simclr(16), batch_size=5), DaliDecoder(CPU, 5, 1))
    with pytest.raises(fastssl.DecodeError, match=r"on_error='skip'") as caught:
        list(loader)
    assert str(loader.errors[0]) in str(caught.value)


def test_damage_within_the_coded_data_shows_the_same_pixels(rng):
    """Of a JPEG that is whole by its markers, libjpeg-turbo shows what it can, and so it does within DALI."""
    data = images.jpeg(images.photo(90, 70))
    random = bytes(rng.integers(0, 255, 298, dtype=np.uint8))
    tails = (b"", bytes(298), b"\xff\0" * 149, random)
    batch = [left(data)._replace(data=tensor_of(data[:-300] + tail + b"\xff\xd9")) for tail in tails]
    for image, decoded in zip(batch, DaliDecoder(CPU, 8, 1).decode(batch), strict=True):
        assert_decoded(image, decoded)


def test_streams_that_take_their_time(photos):
    streams = SlowStreams()
    options = {"batch_size": 4, "epochs": 3, "decode": "full"}
    loader = on_host(Loader(photos, recipes.simclr(16), **options), DaliDecoder(CPU, 4, 1), 0.7, streams)
    results = []
    for batch in loader:
        streams.read(batch, results)
        del batch
    streams.synchronize()
    for got, want in zip(results, Loader(photos, recipes.simclr(16), **options), strict=True):
        for a, b in zip(got, [*want.views, want.targets], strict=True):
            assert torch.equal(a, b)
    streams.end()


def test_to_device(photos):
    source = ImageFolder(photos)
    samples = [(source.path(i), source.target(i), source.filename(i)) for i in range(len(source))]
    dataloader = torch.utils.data.DataLoader(samples, batch_size=5, collate_fn=BytesCollate())
    torch.manual_seed(3)
    want = list(fastssl.to_device(dataloader, recipes.simclr(16), "cpu", decode="full"))
    torch.manual_seed(3)
    loader = fastssl.to_device(dataloader, recipes.simclr(16), "cpu", decode="full")
    assert_same(on_host(loader, DaliDecoder(CPU, 1, 1)), want)


# --- ends ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["break", "close", "garbage", "exception", "at once", "all"])
def test_every_end_is_clean(photos, end):
    before = threading.active_count()
    decoder = DaliDecoder(CPU, 4, 2)
    loader = on_host(Loader(photos, recipes.simclr(16), batch_size=4, epochs=1 if end == "all" else 50), decoder)
    iterator = iter(loader)
    if end == "all":
        list(iterator)
    elif end != "at once":
        next(iterator)
    if end == "exception":
        with pytest.raises(ZeroDivisionError):
            for _ in iterator:
                1 / 0  # noqa: B018
    elif end == "close":
        iterator.close()
    gone = weakref.ref(decoder)
    del iterator, loader, decoder
    gc.collect()
    assert gone() is None and threading.active_count() <= before


LOOP = """
import sys, torch
import fastssl
from fastssl import Loader, recipes
from fastssl.pipelines import DaliBatches, DaliDecoder, FileReader
from slow_streams import on_host
loader = on_host(Loader(sys.argv[1], recipes.simclr(16), batch_size=4, epochs=1000), DaliDecoder(torch.device("cpu"), 4, 2))
reader = FileReader(fastssl.data.ImageFolder(sys.argv[1]), shuffle=True)
ragged = DaliBatches(reader, batch_size=4, device="cpu", threads=2)
"""


CYCLE = "loop = []; loop += [loop, iteration]; del loop, iteration"


@pytest.mark.parametrize("what, end", [("loader", "pass"), ("ragged", "pass"), ("ragged", CYCLE)])
def test_the_interpreter_may_end_in_the_middle(nursery, photos, what, end):
    nursery.run(LOOP + f"iteration = iter({what})\nfirst = next(iteration)\n{end}\n", photos).check()


def test_ctrl_c_in_the_loop(nursery, photos):
    done = nursery.run(
        LOOP
        + """
try:
    while True:
        for i, (images, _, _) in enumerate(ragged):
            if ragged.epoch == 3:
                print("ready", flush=True)
except KeyboardInterrupt:
    pass
else:
    raise SystemExit("no KeyboardInterrupt")
print(sum(len(images) for images, _, _ in ragged))
""",
        photos,
        interrupt_at="ready",
    )
    assert done.check().stdout.splitlines()[-1] == "23"


# --- forks --------------------------------------------------------------------------------------------------------------

FORK = """
import gc, os, signal, sys, warnings
warnings.filterwarnings("ignore", message=".*multi-threaded.*fork.*", category=DeprecationWarning)
import torch
import fastssl
from fastssl import Loader, recipes
from fastssl.pipelines import DaliBatches, DaliDecoder, DaliViews, FileReader, WebdatasetReader
from fastssl.pipelines.decoder import LeftImage
folder = fastssl.data.ImageFolder(sys.argv[1])
reader = FileReader(folder)
def fork(child):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # ends it where it hangs
        child()
        gc.collect()
        sys.exit(0)  # with all that the end of an interpreter does
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""

# What there is when it forks, and what the child does with it before it ends.
USES = {
    "decoder": (
        """
from PIL import Image
def images():
    for i, path in enumerate(folder.paths_of(torch.arange(4))):
        data = torch.frombuffer(bytearray(open(path, "rb").read()), dtype=torch.uint8)
        width, height = Image.open(path).size
        yield LeftImage(i, data, height, width, (0, 0, height, width))
batch = list(images())
decoder = DaliDecoder(torch.device("cpu"), 4, 2)
decoder.start(batch)
decoder.start(batch)
kept = decoder.finish()
""",
        {
            "nothing": "pass",
            "let go": "del globals()['decoder'], globals()['kept']",
            "abandon": "decoder.abandon()",
            "decode": "assert None not in decoder.decode(batch)",
            "finish": "assert None not in decoder.finish()",
            "one that cannot be decoded": "assert decoder.decode([batch[0]._replace(window=(0, 0, 999, 9))]) == [None]",
        },
    ),
    "batches": (
        """
ragged = DaliBatches(reader, batch_size=4, device="cpu", threads=2)
assert sum(len(images) for images, _, _ in ragged) == 23  # its decoder is kept
iteration = iter(ragged)
first = next(iteration)
def refused():
    try:
        next(iteration)
    except RuntimeError as error:
        assert "begun in another process" in str(error), error
    else:
        os._exit(2)
""",
        {
            "nothing": "pass",
            "let go": "del globals()['ragged'], globals()['iteration'], globals()['first']",
            "next": "refused()",
            "again": "assert sum(len(images) for images, _, _ in ragged) == 23",
        },
    ),
    "views": (
        """
recipe = recipes.simclr(16)
views = DaliViews(recipe, batch_size=1, device="cpu", threads=1)
images = [torch.zeros(32, 32, 3, dtype=torch.uint8)]
plan = fastssl.Plan.draw(recipe, [(32, 32)], seed=0)
kept = views(images, plan)
""",
        {
            "nothing": "pass",
            "let go": "del globals()['views'], globals()['kept']",
            "call": "assert all(torch.equal(a, b) for a, b in zip(views(images, plan), kept))",
        },
    ),
    "reader": (
        "batches = reader.batches(0, 4, 1)\nfirst = next(batches)\n",
        {"nothing": "pass", "let go": "del globals()['batches'], globals()['first']"},
    ),
}


@forks_beside_threads
@pytest.mark.parametrize("what, does", [(what, does) for what, (_, uses) in USES.items() for does in uses])
def test_a_forked_child_ends_whatever_it_does_with_dali(nursery, photos, what, does):
    """It has none of DALI's threads, for which DALI waits when it is let go of."""
    made, uses = USES[what]
    nursery.run(f"{FORK}\n{made}\ndef child():\n    {uses[does]}\nfork(child)\n", photos).check()


# --- without it ---------------------------------------------------------------------------------------------------------

WITHOUT = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "nvidia"]:
    del sys.modules[name]
sys.modules["nvidia.dali"] = None  # as if it were not installed
"""


def test_without_dali_the_rest_does_not_notice(nursery, photos):
    done = nursery.run(
        WITHOUT
        + """
import torch
import fastssl
from fastssl.pipelines import DaliBatches, DaliViews, FileReader, choose
print(sum(map(len, fastssl.Loader(sys.argv[1], fastssl.recipes.simclr(16), batch_size=8))))
reader = FileReader(fastssl.data.ImageFolder(sys.argv[1]))
for use in (
    lambda: next(iter(DaliBatches(reader, device="cpu"))),
    lambda: DaliViews(fastssl.recipes.simclr(16), device="cpu")(
        [torch.zeros(8, 8, 3, dtype=torch.uint8)], fastssl.Plan.draw(fastssl.recipes.simclr(16), [(8, 8)], seed=0)
    ),
):
    try:
        use()
    except ImportError as error:
        print(error)
""",
        photos,
    )
    count, *errors = done.check().stdout.splitlines()
    assert count == "23" and errors == ["DALI is not installed; write: pip install 'fastssl-vision[dali]'."] * 2


def test_importing_fastssl_imports_no_dali(nursery):
    done = nursery.run('import sys, fastssl.pipelines; print([m for m in sys.modules if m.startswith("nvidia.dali")])')
    assert done.check().stdout == "[]\n"


def test_a_missing_dali_is_said(monkeypatch):
    why_not_dali_on.cache_clear()
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"decode='dali': DALI is not installed; write: pip install .*decode='cpu'"):
        choose.make_decoder("dali", torch.device("cuda", 0), 4, 1)
    with pytest.raises(RuntimeError, match="decodes for a GPU"):
        choose.make_decoder("dali", CPU, 4, 1)
    why_not_dali_on.cache_clear()


def test_a_dali_that_cannot_decode_is_said(monkeypatch):
    why_not_dali_on.cache_clear()

    def make(self):
        raise RuntimeError("Assert failed:\n\nno driver")

    monkeypatch.setattr(DaliDecoder, "_make", make)
    assert choose.why_not_decoder("dali", torch.device("cuda", 0)) == (
        "DALI cannot decode on cuda:0: Assert failed: no driver"
    )
    why_not_dali_on.cache_clear()


@pytest.mark.parametrize("decode", ["dali", "nvjpeg"])
@pytest.mark.parametrize("device", devices()[-1:])
@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")  # Pillow's
def test_a_loader_of_a_gpu(everything, photos, device, decode):
    """Beside the CPU's decoder, which a good part of the pixels differ from by a level. nVJPEG repeats chroma where others
    interpolate it, which alone moves a view of the test's noise by up to 0.33 on average."""
    near = {"dali": 0.1, "nvjpeg": 0.35}[decode]
    options = {"batch_size": 5, "on_error": "skip", "epochs": 3}
    want = Loader(everything, recipes.simclr(16), decode="full", **options)
    loader = Loader(everything, recipes.simclr(16), device=device, decode=decode, **options)
    for got, wanted in zip(loader, want, strict=True):
        assert got.filenames == wanted.filenames and torch.equal(got.params.data, wanted.params.data)
        for a, b in zip(got.views, wanted.views, strict=True):
            assert (a.cpu() - b).abs().mean() < near
    assert [str(fault) for fault in loader.errors] == [str(fault) for fault in want.errors]
    assert loader.stats()["decoding"]["device_images"] > 3 * len(KINDS)
