"""Processes for tests of what happens at their end: scripts run in forks of one process that has imported everything.

Importing torch takes seconds, a fork milliseconds. The forks are made before the nursery has started any thread, so each
child is as a process that has just imported fastssl; it ends as Python ends, with atexit and finalization.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_SECONDS = 120  # what takes this long hangs
# What AddressSanitizer says once of the fibers that emulated kernels run on.
OF_FIBERS = "ASan doesn't fully support makecontext/swapcontext"


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str

    def check(self) -> Done:
        """Asserts that it ended well, and without a word on stderr."""
        said = "".join(line for line in self.stderr.splitlines(keepends=True) if OF_FIBERS not in line)
        assert self.returncode == 0 and said == "", f"exit {self.returncode}: {said[-3000:]}"
        return self


class Nursery:
    def __init__(self) -> None:
        here = str(Path(__file__).parent)
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", __file__],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._line()  # it has imported everything

    def _line(self) -> str:
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(TIMEOUT_SECONDS):
                raise TimeoutError(f"a process has not ended within {TIMEOUT_SECONDS} s")
        return self._process.stdout.readline().strip()

    def run(self, script: str, *arguments: object, interrupt_at: str | None = None) -> Done:
        """Runs Python code as __main__; sends SIGINT once it has printed the line `interrupt_at`."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            out.touch(), err.touch()
            job = {"script": textwrap.dedent(script), "arguments": [str(a) for a in arguments], "folder": folder}
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            child = int(self._line())
            try:
                if interrupt_at is not None:
                    self._interrupt(child, out, interrupt_at)
                status = int(self._line())
            except TimeoutError:
                os.kill(child, signal.SIGABRT)  # faulthandler says where it hangs
                self._line()
                raise TimeoutError(f"it hangs: {err.read_text()[-3000:]}") from None
            return Done(os.waitstatus_to_exitcode(status), out.read_text(), err.read_text())

    def _interrupt(self, child: int, out: Path, line: str) -> None:
        for _ in range(TIMEOUT_SECONDS * 100):
            if line in out.read_text().splitlines():
                break
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGINT)

    def close(self) -> None:
        self._process.stdin.close()
        # The end of its input need not reach it: processes that were forked meanwhile, as workers are, may have the pipe open.
        self._process.terminate()
        self._process.wait(TIMEOUT_SECONDS)
        self._process.stdout.close()


def serve() -> None:
    """Reads jobs from stdin; in a child it returns, with the job's script run, and the interpreter ends."""
    import images  # noqa: F401
    import loading  # noqa: F401

    import fastssl  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    # A shell's background jobs ignore it, and so would the children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            for fd, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(os.path.join(job["folder"], name), os.O_WRONLY | os.O_APPEND), fd)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.argv = ["script", *job["arguments"]]
            main = sys.modules["__main__"].__dict__
            exec(compile(job["script"], "<script>", "exec"), main)
            return
        print(child, file=answers, flush=True)
        print(os.waitpid(child, 0)[1], file=answers, flush=True)


if __name__ == "__main__":
    serve()
