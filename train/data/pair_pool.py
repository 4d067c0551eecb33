"""Mixes pairs of past batches, so that the samples of one batch do not share sizes and other draws.

Source: Real-ESRGAN, 3.5 of the supplement; realesrgan/models/realesrgan_model.py, _dequeue_and_enqueue.
"""

from typing import Any

import torch
from torch import Tensor

from realesr.errors import UsageError
from realesr.train.degrade.filters import to_device


class PairPool:
    """A pool of `size` pairs on the device of the first batch.

    While it fills, batches are kept and given back as they are; then every new pair takes the place of one drawn from
    the pool, which leaves it for good. Batches may be of any size.
    """

    def __init__(self, size: int, *, eight_bit: bool = True) -> None:
        """Make an empty pool.

        Args:
            size: pairs that it holds.
            eight_bit: keep pairs as bytes, in a quarter of the memory: exact for multiples of 1/255, which sharpened
                images and those of 16 bits are not.

        Raises:
            UsageError: the size is below 1.
        """
        if size < 1:
            raise UsageError(f"got a pool of {size} pairs, expected 1 or more")
        self._size, self._eight_bit = size, eight_bit
        self._filled = 0
        self._lr: Tensor | None = None
        self._hr: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of pairs in the pool."""
        return self._filled

    def exchange(self, lr: Tensor, hr: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Give a batch, and get one of the same size.

        Args:
            lr: (N, 3, h, w) float32 in [0, 1].
            hr: (N, 3, H, W) likewise, pair by pair.
            generator: on the CPU; it decides which pairs leave.

        Raises:
            UsageError: other sizes of images than in the pool.
        """
        stored_lr, stored_hr = self._allocated(lr, hr)
        out: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(lr), self._size):
            small, large = lr[start : start + self._size], hr[start : start + self._size]
            free = self._size - self._filled
            if free:
                self._fill(stored_lr, small[:free])
                self._fill(stored_hr, large[:free])
                self._filled += min(free, len(small))
                out.append((small, large))
            else:
                slots = to_device(torch.randperm(self._size, generator=generator)[: len(small)], lr.device)
                out.append((self._swap(stored_lr, slots, small), self._swap(stored_hr, slots, large)))
        if not out:
            return lr, hr
        return torch.cat([small for small, _ in out]), torch.cat([large for _, large in out])

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and whole numbers: everything that it takes to go on from here."""
        return {
            "size": self._size,
            "filled": self._filled,
            "eight_bit": self._eight_bit,
            "lr": self._lr,
            "hr": self._hr,
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str | None = None) -> None:
        """Restore what `state_dict` returned.

        Args:
            state: of a pool of this size.
            device: where the pairs go; by default they stay where they are.

        Raises:
            UsageError: of a pool of another size or type.
        """
        if (state["size"], state["eight_bit"]) != (self._size, self._eight_bit):
            raise UsageError(
                f"got a pool of {state['size']} pairs (eight_bit {state['eight_bit']}), expected {self._size} "
                f"(eight_bit {self._eight_bit}): set the recipe's degrade.pool back, or start anew"
            )
        self._filled = state["filled"]
        self._lr, self._hr = (
            None if state[name] is None else state[name].to(device or state[name].device, copy=True)
            for name in ("lr", "hr")
        )

    def _allocated(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        if self._lr is None or self._hr is None:
            dtype = torch.uint8 if self._eight_bit else torch.float32
            self._lr, self._hr = (
                torch.zeros((self._size, *images.shape[1:]), dtype=dtype, device=images.device) for images in (lr, hr)
            )
        if self._lr.shape[1:] != lr.shape[1:] or self._hr.shape[1:] != hr.shape[1:]:
            raise UsageError(
                f"got pairs of {tuple(lr.shape[1:])} and {tuple(hr.shape[1:])}, expected those of the pool, "
                f"{tuple(self._lr.shape[1:])} and {tuple(self._hr.shape[1:])}"
            )
        return self._lr, self._hr

    def _fill(self, stored: Tensor, images: Tensor) -> None:
        stored[self._filled : self._filled + len(images)] = self._packed(images)

    def _swap(self, stored: Tensor, slots: Tensor, images: Tensor) -> Tensor:
        leaving = stored.index_select(0, slots)
        stored.index_copy_(0, slots, self._packed(images))
        return leaving.float() / 255 if self._eight_bit else leaving

    def _packed(self, images: Tensor) -> Tensor:
        return (images * 255).round().to(torch.uint8) if self._eight_bit else images
