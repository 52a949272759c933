"""The reference of the benchmark makes the authors' updates, with their number of passes."""

import pytest
import torch
from torch.optim import Adam

from benchmarks.authors import authors_step, contiguous
from lib.methods.ra import AsPublished, ReversedAutoencoder, Weights


def build(normalisation: str) -> ReversedAutoencoder:
    torch.manual_seed(0)
    published = AsPublished(attached_target=True, repeated_passes=True)
    return ReversedAutoencoder(16, [4, 8], 5, Weights(0.7, 1.3, 2.0, 0.9, 0.4), normalisation, published).double()


@pytest.mark.parametrize("normalisation", ["batch", "group"])
def test_its_updates_are_ours_with_the_authors_choices(normalisation):
    images, after = torch.rand(3, 1, 16, 16, dtype=torch.float64), []
    for theirs in (False, True):
        method = build(normalisation)
        method = contiguous(method) if theirs else method
        optimizers = {part: Adam(module.parameters(), 0.01) for part, module in method.named_children()}
        torch.manual_seed(1)
        for _ in range(2):
            if theirs:
                authors_step(method, optimizers["encoder"], optimizers["decoder"], images)
                continue
            for part, losses in method.moves(images):
                losses["total"].backward(inputs=list(getattr(method, part).parameters()), retain_graph=True)
                optimizers[part].step()
                optimizers[part].zero_grad()
        after.append({name: weight.detach() for name, weight in method.named_parameters()})
    for name, weight in after[0].items():
        torch.testing.assert_close(after[1][name], weight, rtol=0, atol=1e-9, msg=name)


def test_it_makes_the_authors_passes():
    method, calls = build("batch"), []
    for part, module in method.named_children():
        module.register_forward_hook(lambda *_, part=part: calls.append(part))
    optimizers = {part: Adam(module.parameters()) for part, module in method.named_children()}
    authors_step(method, optimizers["encoder"], optimizers["decoder"], torch.rand(3, 1, 16, 16, dtype=torch.float64))
    assert calls.count("encoder") == 6 and calls.count("decoder") == 8
