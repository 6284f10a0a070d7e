"""A map over threads that keeps the order and holds only a few results at a time.

Nothing here knows of images; the readers use it to fetch and decode slices side by side.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

MOST_THREADS = 8


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, threads: int | None = None
) -> Iterator[R]:
    """Apply ``function`` to items in threads and yield the results in the items' order.

    No more than twice as many results as threads wait to be taken, so memory stays bounded however
    many items there are. The first exception ends the map, and no further item is begun.

    Args:
        function: safe to be called by several threads at once.
        items: taken one by one as results are.
        threads: how many; by default one per processor, at most ``MOST_THREADS``.
    """
    count = threads or min(MOST_THREADS, os.cpu_count() or 1)
    if count < 2:
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(count, thread_name_prefix="medsr-io")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Also where the consumer stops early or an item fails.
        pool.shutdown(wait=True, cancel_futures=True)
