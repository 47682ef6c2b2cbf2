# The native module as Python sees it; csrc/bind*.cpp. Addresses are those of tensors' memory.
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

PLAN_FIELDS: tuple[str, ...]
FIRST_RESERVED_VIEW: int
CORE_PROBE_OUTPUTS: int

CACHE_VERSION: int

class DecodeError(ValueError): ...
class CacheError(ValueError): ...

class CropKind:
    random: CropKind
    center: CropKind
    whole: CropKind
    same: CropKind

class Filter:
    bilinear: Filter
    bicubic: Filter

class RotateFilter:
    nearest: RotateFilter
    bilinear: RotateFilter

class BlurKind:
    gaussian: BlurKind
    box: BlurKind

class Part:
    all: Part
    before_custom: Part
    after_custom: Part

class PixelType:
    uint8: PixelType
    uint16: PixelType
    float32: PixelType

class Step:
    crop: Step
    jitter: Step
    grayscale: Step
    blur: Step
    solarize: Step
    posterize: Step
    custom: Step

class DType:
    float32: DType
    float16: DType
    bfloat16: DType
    uint8: DType

class ViewSpec:
    size: int
    crop: CropKind
    of: int
    filter: Filter
    area: list[float]
    aspect: list[float]
    keep: float
    flip_p: float
    vflip_p: float
    turn_p: float
    turns: list[int]
    rotate_p: float
    degrees: list[float]
    rotate_filter: RotateFilter
    jitter_p: float
    brightness: list[float]
    contrast: list[float]
    saturation: list[float]
    hue: list[float]
    grayscale_p: float
    blur_p: float
    sigma_px: list[float]
    solarize_p: float
    blur: BlurKind
    threshold: float
    posterize_p: float
    bits: int
    erase_p: float
    erase_area: list[float]
    erase_aspect: list[float]
    erase_value: float
    part: Part
    mean: list[float]
    std: list[float]
    steps: list[Step]

# (address, height, width, stride in bytes, channels, type).
Image = tuple[int, int, int, int, int, PixelType]
StridedImage = tuple[int, int, int, int, int, PixelType, int]
# What a callback of the engine returns: (image, owner) or (address, size, owner).
Fetched = tuple[Image, Any] | tuple[int, int, Any]

class Job:
    def wait(self, milliseconds: int) -> bool: ...
    def wake(self) -> None: ...
    def failures(self) -> list[tuple[int, str]]: ...

# (the first image, bytes from image to image, number of samples, their rows: address of int64 or 0, what keeps all alive).
Array = tuple[Image, int, int, int, Any]

class Cache:
    def error(self) -> str: ...
    def counts(self) -> dict[str, int]: ...

class MemoryCache(Cache):
    def __init__(self, samples: int, bytes: int, base: MemoryCache | None = None) -> None: ...

class FileCache(Cache):
    complete: bool
    idle: bool
    ready: bool
    samples: int
    rule: str
    def __init__(
        self, path: bytes, samples: int, fingerprint: bytes, rule: str, limit: int = 0, any: bool = False
    ) -> None: ...
    def label(self, index: int) -> bytes | None: ...
    def finish(self) -> None: ...
    def damaged(self, threads: int) -> list[int]: ...

def recipe_shrink(views: Sequence[ViewSpec], height: int, width: int) -> int: ...

class Engine:
    def __init__(
        self,
        threads: int,
        views: Sequence[ViewSpec],
        seed: int,
        channels: int,
        as_stored: bool,
        may_shrink: bool,
        array: Array | None,
        fetch: Callable[[int], Fetched],
        decode_other: Callable[[memoryview], Fetched],
        image_step: Callable[[int, Image], Fetched] | None,
        cache: Cache | None = None,
        keep_for: Sequence[ViewSpec] = (),
    ) -> None: ...
    def submit(
        self,
        indices: int,
        count: int,
        positions: Sequence[int],
        paths: list[str | None],
        epoch: int,
        repeat: int,
        outputs: Sequence[tuple[int, DType, bool]],
        plans: int,
        gather: Gather | None = None,
        given: Sequence[tuple[int, int, int, int]] = (),
        leave: int = 0,
        urgent: bool = False,
    ) -> Job: ...
    def close(self) -> bool: ...
    def times(self) -> dict[str, float]: ...

class Lease:
    def __buffer__(self, flags: int) -> memoryview: ...

class BufferPool:
    def __init__(self, kept: int) -> None: ...
    def lease(self, size: int) -> Lease: ...
    def close(self) -> None: ...

def philox4x32(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]: ...
def draw(
    views: Sequence[ViewSpec],
    sizes: Any,  # a sequence of (height, width), or an array of int64, (images, 2)
    seed: int,
    epoch: int,
    indices: Any,  # a sequence, an array of int64, or None for 0, 1, ...
    repeat: int,
    plans: int,
) -> None: ...
def compile(views: Sequence[ViewSpec], count: int, plans: int, channels: int) -> int: ...
def draw_permutation(seed: int, epoch: int, n: int, out: int) -> None: ...
def read_file(path: str | os.PathLike[str]) -> bytes: ...
def is_jpeg(data: int, size: int) -> bool: ...
def memory_at(address: int, size: int) -> memoryview: ...
def plain_jpeg_size(data: int, size: int) -> int: ...
def jpeg_size(data: int, size: int) -> tuple[int, int, int]: ...
def jpeg_decode(data: int, size: int, pixels: int, height: int, width: int, channels: int) -> None: ...
def jpeg_decode_window(
    data: int, size: int, window: Sequence[int], shrink: int, channels: int, libjpeg_huffman: bool = False
) -> tuple[bytes, int, int, int, int, bool]: ...
def render(
    views: Sequence[ViewSpec],
    images: Sequence[StridedImage],
    count: int,
    step: int,
    plans: int,
    outputs: Sequence[int],
    dtype: DType,
    channels_last: bool,
    threads: int,
) -> None: ...

class RenderPlan:
    @property
    def table_bytes(self) -> int: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def launches(self) -> int: ...
    def same_launches(self, other: RenderPlan) -> bool: ...
    def write(self, to: int) -> None: ...
    def launch(self, table: int, workspace: int, device: int, stream: int) -> None: ...

def prepare_render(
    views: Sequence[ViewSpec],
    images: Sequence[StridedImage],
    count: int,
    step: int,
    plans: int,
    outputs: Sequence[int],
    dtype: DType,
    channels_last: bool,
    workspace: int,
    most: tuple[int, int] = (0, 0),
) -> RenderPlan: ...

class Region:
    @property
    def used(self) -> int: ...
    @property
    def taken(self) -> int: ...
    @property
    def beside(self) -> list[tuple[int, int]]: ...

class Gather:
    def __init__(
        self, block: int, size: int, images: int, encoded: int = 0, encoded_size: int = 0, room: int = 0
    ) -> None: ...
    @property
    def pixels(self) -> Region: ...
    @property
    def encoded(self) -> Region: ...
    def left(self) -> list[tuple[int, int, int, int, int, tuple[int, int, int, int]]]: ...

def prepare_gathered(
    gather: Gather,
    positions: Sequence[int],
    base: int,
    beside: Sequence[int],
    decoded: Sequence[tuple[int, int, int, int, int, int, int, int]],
    views: Sequence[ViewSpec],
    plans: int,
    outputs: Sequence[int],
    dtype: DType,
    channels_last: bool,
    workspace: int,
) -> RenderPlan: ...
def emulator_order(order: int) -> None: ...
def simd_name() -> str: ...
def cuda_architectures() -> str: ...
def cuda_device_count() -> int: ...
def cuda_device_info(device: int) -> dict[str, Any]: ...
def core_probe(device: int, pixels: int, n: int, factor: float, out: int) -> None: ...

# csrc/bind_contrastive.cpp
CONTRASTIVE_MOST_DIMENSIONS: int

class RowType:
    float32: ClassVar[RowType]
    float16: ClassVar[RowType]
    bfloat16: ClassVar[RowType]

class GridSize:
    def __init__(
        self,
        multiprocessors: int,
        shared_bytes: int,
        most_slots: int = 128,
        panel_tiles: int = 32,
        steps: int = 512,
        wide: bool = False,
    ) -> None: ...
    @staticmethod
    def of(device: int, wide: bool) -> GridSize: ...
    @property
    def wide(self) -> bool: ...
    @property
    def multiprocessors(self) -> int: ...
    @property
    def shared_bytes(self) -> int: ...
    def cut(self, most_slots: int, panel_tiles: int, steps: int) -> GridSize: ...

class RowMatrix:
    def __init__(self, data: int, count: int, stride: int, ids: int, normalize: bool, type: RowType) -> None: ...

class ContrastiveJob:
    def __init__(
        self,
        query: RowMatrix,
        key: RowMatrix | None,
        dimensions: int,
        scale: int,
        positive: int,
        columns: bool,
    ) -> None: ...

class ForwardPlan:
    def __init__(self, job: ContrastiveJob, grid: GridSize) -> None: ...
    @property
    def wide(self) -> bool: ...
    @property
    def bytes(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def segments(self) -> int: ...
    def launch(
        self,
        job: ContrastiveJob,
        rows: int,
        positives: int,
        columns: int,
        workspace: int,
        device: int,
        stream: int,
    ) -> None: ...

class BackwardInputs:
    def __init__(self, rows: int, columns: int, grad_rows: int, grad_positives: int, grad_columns: int) -> None: ...

class BackwardPlan:
    def __init__(self, job: ContrastiveJob, grid: GridSize, needs_query: bool, needs_key: bool) -> None: ...
    @property
    def wide(self) -> bool: ...
    @property
    def bytes(self) -> int: ...
    @property
    def fused(self) -> bool: ...
    @property
    def wide_panels(self) -> bool: ...
    def launch(
        self,
        job: ContrastiveJob,
        inputs: BackwardInputs,
        grad_query: int,
        grad_key: int,
        grad_scale: int,
        workspace: int,
        device: int,
        stream: int,
    ) -> None: ...

class Ntxent:
    def __init__(self, rows: int, dimensions: int, type: RowType, grid: GridSize) -> None: ...
    @property
    def kept_bytes(self) -> int: ...
    @property
    def forward_bytes(self) -> int: ...
    @property
    def backward_bytes(self) -> int: ...
    def forward(
        self,
        first: int,
        first_stride: int,
        second: int,
        second_stride: int,
        scale: int,
        scale_value: float,
        loss: int,
        kept: int,
        workspace: int,
        device: int,
        stream: int,
    ) -> None: ...
    def backward(
        self,
        first: int,
        first_stride: int,
        second: int,
        second_stride: int,
        scale: int,
        scale_value: float,
        grad: int,
        kept: int,
        grad_first: int,
        grad_second: int,
        grad_scale: int,
        workspace: int,
        device: int,
        stream: int,
    ) -> None: ...

# csrc/bind_masks.cpp
MASK_STREAM: int
MASK_STREAMS: int
MASK_DRAWS: int
MASK_CELL_BITS: int
MASK_CONTEXTS: int
MASK_TARGETS: int

class MaskExecutor:
    @staticmethod
    def host(threads: int) -> MaskExecutor: ...
    @staticmethod
    def emulated() -> MaskExecutor: ...
    @staticmethod
    def cuda(device: int, stream: int) -> MaskExecutor: ...
    @property
    def scratch(self) -> bool: ...

class MaskKeys:
    def __init__(self, indices: int, samples: int, seed: int, epoch: int, stream: int) -> None: ...

class CellGrid:
    def __init__(self, rows: int, columns: int, side: int) -> None: ...

def mask_rank_scratch(cells: int) -> int: ...
def mask_bits_scratch(rows: int, columns: int) -> int: ...
def mask_cells(executor: MaskExecutor, keys: MaskKeys, grid: CellGrid, kept: int, out: int, scratch: int) -> None: ...
def mask_tokens(
    executor: MaskExecutor,
    keys: MaskKeys,
    grid: CellGrid,
    kept: int,
    prefix: int,
    keep: int,
    masked: int,
    scratch: int,
) -> None: ...
def mask_prefix(executor: MaskExecutor, keys: MaskKeys, length: int, low: int, high: int, out: int) -> None: ...
def mask_inverse_block(
    executor: MaskExecutor,
    keys: MaskKeys,
    rows: int,
    columns: int,
    visible: int,
    aspect: tuple[float, float],
    roll: bool,
    inside: bool,
    out: int,
) -> None: ...
def mask_counts(
    executor: MaskExecutor,
    keys: MaskKeys,
    ratio: tuple[float, float],
    share: float,
    cells: int,
    exact_share: bool,
    out: int,
    order: int,
) -> None: ...
def mask_blocks(
    executor: MaskExecutor,
    keys: MaskKeys,
    rows: int,
    columns: int,
    limit: int,
    least: int,
    most: int,
    aspect: tuple[float, float],
    attempts: int,
    counts: int,
    out: int,
    scratch: int,
) -> None: ...
def mask_multi_block(
    executor: MaskExecutor,
    keys: MaskKeys,
    grid: tuple[int, int],
    room: tuple[int, int],
    context: tuple[int, int],
    target: tuple[int, int],
    contexts: int,
    targets: int,
    least: int,
    allow_overlap: bool,
    seen: int,
    predicted: int,
    scratch: int,
) -> None: ...
def mask_partition(
    executor: MaskExecutor, mask: int, rows: int, length: int, count: int, prefix: int, first: int, rest: int
) -> None: ...
def mask_least_set(mask: int, rows: int, length: int) -> int: ...
def mask_log_uniform(words: Sequence[int], low: float, high: float) -> list[float]: ...
