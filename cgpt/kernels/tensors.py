"""Arrays into tinygrad's buffers and back into the same ones, without a graph: building it costs 3 ms a tensor."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from weakref import WeakKeyDictionary

import numpy as np
from tinygrad import Device, Tensor
from tinygrad.device import Buffer, MultiBuffer
from tinygrad.dtype import _from_np_dtype, _to_np_dtype
from tinygrad.engine.realize import capturing
from tinygrad.runtime.ops_cpu import CPUAllocator

from cgpt.files.mapped import ALIGNMENT, mapping_of
from cgpt.kernels.native.arena import LARGE_PAGE, aligned

Placement = str | tuple[str, ...] | None  # one device, several that hold the same, or tinygrad's default

_memory: WeakKeyDictionary[Buffer, np.ndarray] = WeakKeyDictionary()  # what is not tinygrad's, as long as its buffer
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


def held(array: np.ndarray, device: Placement) -> Tensor:
    """As `realized`; on the processor an aligned array that is mapped from a file is the tensor's memory itself.

    What is written to the tensor is then in the array too, and not in the file.
    """
    if _without_memory.get() or not _is_mapped(array):
        return realized(array, device)
    tensor = unwritten(array, device)
    buffer, *others = _buffers(tensor)
    if others or not isinstance(Device[buffer.device].allocator, CPUAllocator):
        return realized(array, device)
    _use(buffer, array)
    return tensor


def _is_mapped(array: np.ndarray) -> bool:
    """Whether an array lies aligned and without gaps in the pages of a private mapping."""
    aligned_whole = array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0
    return aligned_whole and mapping_of(array) is not None


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
        buffer.copyin(np.require(array, requirements=["C", "W"]).data.cast("B"))  # tinygrad reads no read-only memory


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
    _use(buffer, aligned(buffer.nbytes))


def _use(buffer: Buffer, memory: np.ndarray) -> None:
    """Make an array the memory of a buffer."""
    buffer.allocate(external_ptr=memory.ctypes.data)
    _memory[buffer] = memory


def _buffers(tensor: Tensor) -> list[Buffer]:
    """The tensor's memory, on each of its devices."""
    buffer = tensor.uop.base.buffer
    return buffer.bufs if isinstance(buffer, MultiBuffer) else [buffer]
