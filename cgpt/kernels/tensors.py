"""Arrays into tinygrad's buffers and back into the same ones, without a graph: building it costs 3 ms a tensor."""

import contextlib
import weakref
from collections.abc import Iterator
from contextvars import ContextVar

import numpy as np
from tinygrad import Device, Tensor
from tinygrad.device import Buffer, MultiBuffer
from tinygrad.dtype import _from_np_dtype, _to_np_dtype
from tinygrad.engine.realize import capturing
from tinygrad.runtime.ops_cpu import CPUAllocator

from cgpt.kernels.native.arena import LARGE_PAGE, aligned

Placement = str | tuple[str, ...] | None  # one device, several that hold the same, or tinygrad's default

_without_memory: ContextVar[bool] = ContextVar("without memory", default=False)


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """Tensors made inside have a shape and no memory: for models that are looked at and never run."""
    token = _without_memory.set(True)
    try:
        yield
    finally:
        _without_memory.reset(token)


def unwritten(array: np.ndarray, device: Placement) -> Tensor:
    """A tensor of the array's shape and type, whose memory is not even allocated yet."""
    return Tensor.empty(*array.shape, dtype=_from_np_dtype(array.dtype), device=device)


def realized(array: np.ndarray, device: Placement) -> Tensor:
    """A tensor that holds the array's values, all of them on each of several devices."""
    tensor = unwritten(array, device)
    if not _without_memory.get():
        for buffer in _buffers(tensor):
            _allocate(buffer)
        write(tensor, array)
    return tensor


def at_hand(values: Tensor | np.ndarray) -> np.ndarray | None:
    """The values of a tensor or an array; None while a function of the tensor is captured, when it has none yet."""
    if isinstance(values, np.ndarray):
        return values
    return None if capturing or _without_memory.get() else values.realize().numpy()


def dtype_of(values: Tensor | np.ndarray) -> np.dtype:
    """The type of a tensor's or an array's values, as NumPy names it."""
    return values.dtype if isinstance(values, np.ndarray) else np.dtype(_to_np_dtype(values.dtype) or np.void)


def write(tensor: Tensor, array: np.ndarray) -> None:
    """Overwrite a realised tensor in place, also under functions that have captured it."""
    for buffer in _buffers(tensor):
        buffer.copyin(np.ascontiguousarray(array).data.cast("B"))


def read(tensor: Tensor) -> np.ndarray:
    """The values of a realised tensor; of one that is split, the shares of all devices in order."""
    parts = [buffer.numpy() for buffer in _buffers(tensor)]
    return (parts[0] if tensor.uop.axis is None else np.concatenate(parts)).reshape(tensor.shape)


def split(batch: Tensor) -> Tensor:
    """The tensor with its rows shared out among the devices that hold it, if they can be shared evenly."""
    devices = batch.device
    if isinstance(devices, str) or batch.shape[0] % len(devices):
        return batch
    return Tensor(batch.uop._shard(0, len(devices)).multi(0))


def _allocate(buffer: Buffer) -> None:
    """Give a buffer memory: on large pages where it is a large one of the processor, since tinygrad's have none."""
    if buffer.nbytes < LARGE_PAGE or not isinstance(Device[buffer.device].allocator, CPUAllocator):
        buffer.allocate()
        return
    memory = aligned(buffer.nbytes)
    buffer.allocate(external_ptr=memory.ctypes.data)
    weakref.finalize(buffer, lambda _: None, memory)  # which lives as long as the buffer


def _buffers(tensor: Tensor) -> list[Buffer]:
    """The tensor's memory, on each of its devices."""
    buffer = tensor.uop.base.buffer
    return buffer.bufs if isinstance(buffer, MultiBuffer) else [buffer]
