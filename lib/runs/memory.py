"""How much memory training takes at the least, computed from shapes: nothing is allocated."""

from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lib.methods.method import Method


class Memory(NamedTuple):
    """Bytes that training holds at one time, in float32."""

    weights: int
    """Every weight, its gradient, and Adam's two means."""
    batch: int
    """What the costliest move on a batch keeps for its backward pass."""


def training_memory(build: Callable[[], Method], image_size: int, batch_size: int, epoch: int) -> Memory | None:
    """Return the memory of training the method that `build` returns, in that epoch; training takes somewhat more.

    None if shapes alone do not tell: the method's moves depend on the values of its tensors.
    """
    kept: WeakValueDictionary[int, Tensor] = WeakValueDictionary()  # what a graph no longer holds is gone

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor  # views share a storage
        return tensor

    batch = 0
    with torch.device("meta"):
        method = build().train()
        weights = {weight.untyped_storage()._cdata for weight in method.parameters()}
        try:
            with saved_tensors_hooks(keep, lambda tensor: tensor):
                for _, losses in method.moves(torch.empty(batch_size, 1, image_size, image_size), epoch):
                    of_batch = [tensor.untyped_storage() for storage, tensor in kept.items() if storage not in weights]
                    batch = max(batch, sum(storage.nbytes() for storage in of_batch))
                    losses.clear()
        except (NotImplementedError, RuntimeError):  # of tensors that have no values
            return None
    return Memory(4 * sum(weight.nbytes for weight in method.parameters()), batch)
