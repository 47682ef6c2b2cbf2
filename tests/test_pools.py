"""The end of pools of threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

from fastssl.pipelines.pools import PREFIX, end_pool


def test_a_pool_is_waited_for_but_on_threads_of_fastssl():
    """There the garbage collector may have come by, and what the pool does may wait for that very thread."""
    going_on = threading.Event()
    reading, pool = ThreadPoolExecutor(1, PREFIX + "read"), ThreadPoolExecutor(1, PREFIX + "ragged")
    done = pool.submit(going_on.wait, 60)
    assert reading.submit(end_pool, pool).result(60) is False
    going_on.set()
    assert done.result(60)
    assert end_pool(reading) and end_pool(pool)
