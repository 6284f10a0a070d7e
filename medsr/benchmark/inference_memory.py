"""How much memory one call takes at its peak, as far as one process can tell.

On a processor a thread reads the process's resident memory every few milliseconds while the call
runs; what is reported is the highest reading less the one before the call, output included. Before
the call, garbage is collected and the C library is asked to return what it holds freed, so that
one call cannot live on what another left behind. What libraries keep on purpose (packed weights,
scratch) counts for the call that made it first. On a GPU torch's own counter is exact.
"""

from __future__ import annotations

import gc
import threading
from types import TracebackType

import psutil
import torch

from medsr.infer.engine.malloc_trim import malloc_trim

INTERVAL_SECONDS = 0.005

EXPLANATION = (
    "resident memory of the process, read every 5 ms while the arm runs, less what it was before; "
    "output included; most of all runs"
)
EXPLANATION_CUDA = (
    "torch's counter of allocated GPU memory, less what it was before; output included"
)


class PeakMemory:
    """Measures the memory taken while its block runs.

    Args:
        device: Where the work is done: a GPU's own memory is measured, else the process's.

    Attributes:
        extra_bytes: Most memory taken on top of what was taken before; 0 until the block is left.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.extra_bytes = 0
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
            return self
        malloc_trim()
        self._before = self._most = self._resident()
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            most = torch.cuda.max_memory_allocated(self.device)
        else:
            self._stop.set()
            if self._thread is not None:
                self._thread.join()
            most = max(self._most, self._resident())
        self.extra_bytes = max(0, most - self._before)

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            self._most = max(self._most, self._resident())

    def _resident(self) -> int:
        return int(self._process.memory_info().rss)
