"""The memory of training is computed without taking it."""

import resource
from weakref import WeakValueDictionary

import torch
from torch import nn

from lib.methods.method import Method
from lib.methods.variants import VARIANTS
from lib.params import Params
from lib.runs.memory import training_memory


class Counted(Method):
    """A network of 3 + 3 weights whose backward pass needs the images, and its output once."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU())

    def moves(self, images, epoch=0):
        yield "network", {"total": self.network(images).square().mean()}

    def reconstruct(self, images):
        return images


def test_memory_is_that_of_weights_with_their_means_and_of_what_a_batch_keeps():
    assert training_memory(Counted, 16, 8, 0) == (4 * 4 * 6, 4 * 8 * 16 * 16 * (1 + 3))


class Undecided(Counted):
    """Its moves depend on what the images hold."""

    def moves(self, images, epoch=0):
        if images.mean() > 0.5:
            yield from super().moves(images, epoch)


def test_a_method_that_looks_at_values_has_no_known_memory():
    assert training_memory(Undecided, 16, 8, 0) is None


def test_every_method_keeps_as_much_as_a_real_batch_does():
    for name in ("unet", "ra", "ae-16"):
        params = Params(image_size=32, widths=[4, 8], latent_dim=4, batch_size=4, epochs=1, ra_warmup_epochs=0)
        kept: WeakValueDictionary[int, torch.Tensor] = WeakValueDictionary()
        held = []

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        method = VARIANTS[name](params).train()
        weights = {weight.untyped_storage().data_ptr() for weight in method.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            for _, losses in method.moves(torch.rand(4, 1, 32, 32), 0):
                held.append(sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in weights))
                losses.clear()
        wanted = training_memory(lambda name=name, params=params: VARIANTS[name](params), 32, 4, 0)
        assert 0.8 * max(held) <= wanted.batch <= 1.01 * max(held), name
        assert wanted.weights == 16 * sum(weight.numel() for weight in method.parameters())


def test_sizes_that_no_machine_has_are_computed_in_the_memory_of_this_one():
    params = Params(image_size=1024, batch_size=65_536, widths=[65_536] * 3, latent_dim=65_536)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wanted = training_memory(lambda: VARIANTS["ra"](params), params.image_size, params.batch_size, 0)
    assert min(wanted) > 1e14
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
