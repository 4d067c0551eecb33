"""A session whose input and output lie in a GPU's memory, and stay there from tile to tile.

Without it ONNX Runtime allocates both anew for every run.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class DeviceBinding:
    """Binding of one session's input and output to memory of the device `device_type` and `number`."""

    def __init__(self, session: Any, device_type: str, number: int) -> None:
        self._session = session
        self._place = (device_type, number)
        self._names = (session.get_inputs()[0].name, session.get_outputs()[0].name)
        self._input: Any = None
        self._binding: Any = None
        self._shape: tuple[int, ...] | None = None

    def run(self, batch: NDArray[Any], options: Any) -> NDArray[Any]:
        """Run a batch, (N, 3, h, w) of the session's type, and return the output as an array of its own."""
        try:
            if batch.shape == self._shape:
                self._input.update_inplace(batch)
            else:
                self._make_room(batch)
            # Anew for each batch: a value whose first node runs elsewhere, say on the CPU, is copied when it is bound
            # (IOBinding::BindInput, core/session/IOBinding.cc). Where the device is the same this only sets a pointer.
            self._binding.bind_ortvalue_input(self._names[0], self._input)
            self._session.run_with_iobinding(self._binding, options)
            output: NDArray[Any] = self._binding.copy_outputs_to_cpu()[0]
        except BaseException:
            self.forget()  # a tile that did not fit must not keep its memory
            raise
        return output

    def forget(self) -> None:
        """Free the memory of input and output."""
        self._binding = self._input = self._shape = None

    def _make_room(self, batch: NDArray[Any]) -> None:
        """Put a batch into new memory of the device, for all batches of its shape."""
        import onnxruntime

        self.forget()
        # A copy: on a CPU the value would stay a view of the batch, which belongs to the caller.
        self._input = onnxruntime.OrtValue.ortvalue_from_numpy(np.array(batch), *self._place)
        self._binding = self._session.io_binding()
        self._binding.bind_output(self._names[1], *self._place)
        self._shape = batch.shape
