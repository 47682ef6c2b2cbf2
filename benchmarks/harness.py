"""How every comparison here is made: checked before it is timed, all contenders in one run, in interleaved rounds.

A contender is a function that takes the task's inputs, imports its library inside, and returns the call to time, which
gives its output piece by piece. It is first run once and all of its output is checked, so that nothing fast and wrong
is ever timed. Then each round times every contender once, starting one further each time, so that a slow minute of the
machine falls on all of them; the figures are median, minimum and spread over rounds. A contender that is marked slow
runs in fewer of the rounds, spread evenly. Memory is measured before that, in a process of its own. A peer that is not
installed, one that raises, and one that fails its check are listed as such with the reason: nothing is dropped silently.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "fastssl-vision torch torchvision numpy pillow timm lightly albumentations opencv-python-headless simplejpeg "
    "kornia nvidia-dali-cuda130 inf-cl open-clip-torch"
).split()

LOAD_AT_START = round(os.getloadavg()[0], 2)  # of the last minute; above some tenths, something else was running

Run = Callable[[], Iterable[Any]]


class CheckFailed(ValueError):
    """A contender's output is not what the task asks for."""


@dataclass(frozen=True)
class Contender:
    """One way of doing a task.

    Args:
        name: As the tables show it.
        make: Takes the task's inputs, returns the call to time.
        needs: Modules without which the contender is absent.
        slow: Whether fewer rounds must do.
        check: In place of the task's, for one that does another thing beside (decoding alone, beside views).
    """

    name: str
    make: Callable[[Any], Run]
    needs: tuple[str, ...] = ()
    slow: bool = False
    check: Callable[[Iterable[Any]], dict[str, Any]] | None = None

    def missing(self) -> list[str]:
        return [name for name in self.needs if not importable(name)]


def importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that holds it is missing too
        return False


class Task:
    """A titled list of contenders over the same inputs.

    Args:
        title: As the tables show it.
        items: Of which kind are the items that a call gets through: "images".
        inputs: What every contender's `make` is given.
        count: How many items they hold.
        check: Takes what a contender's call gives and tells what was found (shape, mean, ...); raises CheckFailed.
        settings: What else the results belong to: {"threads": 1}.
    """

    def __init__(
        self,
        title: str,
        items: str,
        inputs: Any,
        count: int,
        check: Callable[[Iterable[Any]], dict[str, Any]],
        settings: dict[str, Any],
    ) -> None:
        self.title, self.items, self.inputs, self.count = title, items, inputs, count
        self.check, self.settings = check, settings
        self.contenders: list[Contender] = []
        self.peaks_mib: dict[str, float | None] = {}

    def contender(
        self,
        name: str,
        *needs: str,
        slow: bool = False,
        check: Callable[[Iterable[Any]], dict[str, Any]] | None = None,
    ) -> Callable[[Callable[[Any], Run]], Callable[[Any], Run]]:
        def add(make: Callable[[Any], Run]) -> Callable[[Any], Run]:
            self.contenders.append(Contender(name, make, needs, slow, check))
            return make

        return add

    def measure_memory(self, inputs: Any) -> None:
        """Memory of each contender, in forked processes; before any `run`, since a fork must not inherit threads.

        `inputs` may hold fewer items than those to be timed, but enough for the peak.
        """
        for contender in self.contenders:
            if not contender.missing():
                self.peaks_mib[contender.name] = peak_memory_mib(lambda make=contender.make: exhaust(make(inputs)()))

    def run(self, *, rounds: int, slow_rounds: int) -> list[Result]:
        """Checks and times every contender: in all rounds, or in `slow_rounds` of them."""
        results: list[Result] = []
        ready: list[tuple[Contender, Result, Run]] = []
        for contender in self.contenders:
            result = Result(self.title, contender.name, self.items, self.count, self.settings)
            results.append(result)
            if missing := contender.missing():
                result.status = f"absent: {', '.join(missing)} not installed"
                continue
            try:
                call = contender.make(self.inputs)
                result.check = (contender.check or self.check)(call())
            except CheckFailed as error:
                result.status = f"failed its check: {error}"
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, it is listed and the others go on
                result.status = failure(error)
                continue
            result.peak_mib = self.peaks_mib.get(contender.name)
            ready.append((contender, result, call))
        slow = {round(i * (rounds - 1) / max(1, slow_rounds - 1)) for i in range(min(slow_rounds, rounds))}
        for number in range(rounds):
            for position in range(len(ready)):
                contender, result, call = ready[(position + number) % len(ready)]
                if result.status != "ok" or (contender.slow and number not in slow):
                    continue
                begin = time.perf_counter()
                try:
                    exhaust(call())
                except Exception as error:  # noqa: BLE001 - as above
                    result.status = failure(error)
                    result.seconds.clear()
                    continue
                result.seconds.append(time.perf_counter() - begin)
        return results


def failure(error: Exception) -> str:
    """What is listed in place of figures, on one line; of a long message the beginning and the end."""
    said = " ".join(str(error).split()) or "no message"
    return f"failed: {type(error).__name__}: {said if len(said) < 300 else said[:100] + ' ... ' + said[-200:]}"


def exhaust(pieces: Iterable[Any]) -> None:
    deque(pieces, maxlen=0)


@dataclass
class Result:
    """What one contender did in one task under one setting."""

    task: str
    contender: str
    items: str
    count: int
    settings: dict[str, Any]
    status: str = "ok"
    check: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    peak_mib: float | None = None

    def to_json(self) -> dict[str, Any]:
        record = asdict(self)
        if self.seconds:
            record["median_s"] = statistics.median(self.seconds)
            record["min_s"] = min(self.seconds)
            record["spread"] = (max(self.seconds) - min(self.seconds)) / record["median_s"]
            record["per_second"] = self.count / record["median_s"]
        return record


# --- memory -----------------------------------------------------------------------------------------------------------


def peak_memory_mib(call: Callable[[], None], every_s: float = 0.02) -> float | None:
    """Largest memory of a process that does `call`, its children included, over that before it; None off Linux.

    In MiB of proportional set size, so that pages shared with workers count once. What `call` imports counts too.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def measure() -> None:
        base = peak = tree_memory_kib(os.getpid()) or 0
        done = threading.Event()

        def sample() -> None:
            nonlocal peak
            while not done.wait(every_s):
                peak = max(peak, tree_memory_kib(os.getpid()) or 0)

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            call()
        except Exception:  # noqa: BLE001 - no figure; `run` meets the error again and lists it
            failed = True
        else:
            failed = False
        done.set()
        thread.join()
        sender.send(None if failed else (peak - base) / 1024)

    process = multiprocessing.get_context("fork").Process(target=measure)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:  # the process died
        return None
    finally:
        process.join()


def tree_memory_kib(pid: int) -> int | None:
    """Proportional set size of a process and its descendants, in KiB; None where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = [c for p in Path(f"/proc/{pid}/task").glob("*/children") for c in p.read_text().split()]
    except OSError:  # the process is gone, or this is not Linux
        return None
    own = int(re.search(r"^Pss:\s+(\d+) kB", text, re.M)[1])  # type: ignore[index]
    return own + sum(tree_memory_kib(int(child)) or 0 for child in children)


# --- machine and report -----------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """The machine, the versions and the commit that a figure belongs to."""
    try:
        model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    except OSError:
        model = memory = None
    description: dict[str, Any] = {
        "cpu": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(int(memory[1]) / 2**20) if memory else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_at_start": LOAD_AT_START,
        "gpu": None,
    }
    import torch

    if torch.cuda.is_available():
        description["gpu"] = torch.cuda.get_device_name()
        description["cuda"] = torch.version.cuda
    return description


def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def commit() -> str:
    """FASTSSL_COMMIT, for a copy whose repository is behind it; else the commit, with + where files differ from it."""
    if given := os.environ.get("FASTSSL_COMMIT"):
        return given

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        name = git("rev-parse", "--short=12", "HEAD")
        return name + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def report(name: str, results: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The JSON of one benchmark: what was measured, on what, with what, when."""
    return {
        "benchmark": name,
        "command": " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        **more,
        "results": list(results),
    }


def write(data: dict[str, Any], path: Path | None = None) -> Path:
    """Writes a report, by default to benchmarks/results/<benchmark>-<device>.json, and says where."""
    path = path or RESULTS / f"{data['benchmark']}-{slug(data['machine'])}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n")
    print(f"wrote {path}")
    return path


def slug(description: dict[str, Any]) -> str:
    """A device's name as part of a file name: nvidia-h100-80gb-hbm3, or amd-epyc-9b45-2."""
    name = description["gpu"] or f"{description['cpu']} {description['cores']}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def table(records: Sequence[dict[str, Any]], baseline: str | None = None) -> str:
    """Markdown table of the records of one task and setting; ratios are of medians, over `baseline`'s speed."""
    medians = {r["contender"]: r["median_s"] for r in records if "median_s" in r}
    base = medians.get(baseline) if baseline else None
    peaks = any(r["peak_mib"] is not None for r in records)
    head = ["", "images/s", "ms an image", "spread"] + ["peak memory"] * peaks + [f"times {baseline}"] * bool(base)
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for r in records:
        if "median_s" not in r:
            rows.append([r["contender"], r["status"], *[""] * (len(head) - 2)])
            continue
        row = [
            r["contender"],
            f"{r['per_second']:,.0f}",
            f"{1e3 * r['median_s'] / r['count']:.2f}",
            f"{r['spread']:.0%}",
        ]
        if peaks:
            row.append("" if r["peak_mib"] is None else f"{r['peak_mib']:.0f} MiB")
        rows.append(row + ([f"{base / r['median_s']:.1f}"] if base else []))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
