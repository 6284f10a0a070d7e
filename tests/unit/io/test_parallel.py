"""The threaded map keeps order, holds few results, and stops at the first failure."""

from __future__ import annotations

import threading
import time
from itertools import count, islice

import pytest

from medsr.io.parallel import ordered_map


@pytest.mark.parametrize("threads", [1, 4])
def test_order_is_kept(threads: int) -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0.0)
        return number * number

    assert list(ordered_map(slow_first, range(50), threads=threads)) == [n * n for n in range(50)]


def test_few_results_wait() -> None:
    begun = []
    results = ordered_map(begun.append, count(), threads=3)
    list(islice(results, 5))
    results.close()  # type: ignore[attr-defined]
    assert len(begun) <= 5 + 2 * 3


def test_threads_work_side_by_side() -> None:
    both = threading.Barrier(2, timeout=10)
    assert list(ordered_map(lambda _: both.wait() >= 0, range(2), threads=2)) == [True, True]


def test_the_first_failure_ends_it() -> None:
    done = []

    def work(number: int) -> int:
        if number == 3:
            raise KeyError(number)
        done.append(number)
        return number

    with pytest.raises(KeyError):
        list(ordered_map(work, range(1000), threads=2))
    assert len(done) < 20
