"""Memory of recorded kernels: pages of their own, and an arena that all recordings of a process share."""

import mmap
import weakref

import numpy as np

PAGE, LARGE_PAGE = 4096, 1 << 21


def aligned(n_bytes: int) -> np.ndarray:
    """Uninitialised memory (n_bytes,) uint8 that starts on a page, on large pages where the system has them."""
    if n_bytes < LARGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.frombuffer(mmap.mmap(-1, max(n_bytes, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8, n_bytes)
    memory = mmap.mmap(-1, n_bytes + LARGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = -np.frombuffer(memory, np.uint8).ctypes.data % LARGE_PAGE
    memory.madvise(mmap.MADV_HUGEPAGE, start, n_bytes - n_bytes % LARGE_PAGE)  # the rest would take a whole one too
    return np.frombuffer(memory, np.uint8, n_bytes, start)


class Arena:
    """Memory for values that a recording computes on its way and reads no more after it: one may use it at a time."""

    def __init__(self) -> None:
        self._memory = aligned(0)

    def address(self, n_bytes: int) -> int:
        """Address of the arena, now of n_bytes at least; it moves when it grows, and what it held is lost."""
        if self._memory.nbytes < n_bytes:
            self._memory = aligned(0)  # given back before there is more
            self._memory = aligned(n_bytes)
        return self._memory.ctypes.data


_of_process: weakref.ref[Arena] | None = None


def shared_arena() -> Arena:
    """The arena of this process; its memory is given back with its last holder."""
    global _of_process
    arena = _of_process() if _of_process else None
    if arena is None:
        arena = Arena()
        _of_process = weakref.ref(arena)
    return arena
