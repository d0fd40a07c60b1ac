"""Wall time and peak memory of a piece of work."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cost", "measured"]

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass
class Cost:
    """What a piece of work took; filled when it ends."""

    minutes: float | None = None
    peak_gb: float | None = None
    """Device memory (GB = 1e9 bytes) where a GPU was used; else resident memory of this process; None if unknown."""


def _cuda_peak(reset: bool) -> float | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    if reset:
        torch.cuda.reset_peak_memory_stats()
    return float(torch.cuda.max_memory_allocated()) / 1e9


def _resident_peak(reset: bool) -> float | None:
    """Linux keeps the highest resident size; writing 5 to clear_refs starts it afresh. None on other systems."""
    try:
        if reset:
            _CLEAR.write_text("5", encoding="ascii")
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)
    return None if kilobytes is None else kilobytes * 1024 / 1e9


@contextmanager
def measured() -> Iterator[Cost]:
    """Measures the block of a `with`; the cost it gives is filled when the block ends, also where it raised."""
    cost = Cost()
    _resident_peak(reset=True)
    _cuda_peak(reset=True)
    start = time.perf_counter()
    try:
        yield cost
    finally:
        cost.minutes = (time.perf_counter() - start) / 60
        gpu = _cuda_peak(reset=False)
        cost.peak_gb = _resident_peak(reset=False) if gpu is None else gpu
