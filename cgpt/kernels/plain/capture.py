"""Functions of tensors that tinygrad captures once per shape of their inputs and then replays, on any device."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tinygrad import Tensor, TinyJit

from cgpt.kernels.tensors import Placement, read, realized, write


class Captured:
    """Calls functions on arrays. Each function and shape has its own input tensors, which are kept and overwritten:
    making new ones costs more than a small model's step. Its arguments are those of `native.capture.Captured`."""

    def __init__(self, device: Placement, state: Sequence[Tensor] = (), identity: Any = None):
        self.device = device
        self._calls: dict[tuple, tuple[TinyJit, list[Tensor]]] = {}

    def __call__(self, function: Callable[..., Sequence[Tensor]], *arrays: np.ndarray) -> list[np.ndarray]:
        """The function's outputs. Arrays are contiguous; the function is a method known by its name."""
        key = (function.__qualname__, *((a.shape, a.dtype.char) for a in arrays))
        if key not in self._calls:
            inputs = [realized(a, self.device) for a in arrays]
            captured = TinyJit(lambda *tensors: [output.contiguous() for output in function(*tensors)])
            captured.cnt = 1  # capture at the first call: nothing is initialised on the way, so no plain run is needed
            self._calls[key] = captured, inputs
        captured, inputs = self._calls[key]
        for tensor, array in zip(inputs, arrays):
            write(tensor, array)
        return [read(output) for output in captured(*inputs)]
