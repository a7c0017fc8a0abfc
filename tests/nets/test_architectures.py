"""The published shapes: parameter counts, layers, scores for any batch, and seeded initial weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nets.architectures import ARCHITECTURES, architecture, build
from verifier.errors import InputError

PUBLISHED_PARAMETERS = {"cnn4k": 3_818, "strided2": 13_626, "strided3": 15_554, "wide150k": 144_838, "digit28": 166_406}
RELUS = {"cnn4k": 12_288, "strided2": 4_608, "strided3": 9_728, "wide150k": 7_268, "digit28": 4_804}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_architecture_has_its_published_number_of_parameters() -> None:
    for name, chosen in ARCHITECTURES.items():
        counted = sum(parameter.numel() for parameter in build(chosen, seeded(0)).parameters())
        assert counted == chosen.parameters == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_for_any_batch_and_the_documented_number_of_relus(name: str) -> None:
    network = build(architecture(name), seeded(0))
    relus: list[int] = []
    for layer in network:
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda _module, _inputs, output: relus.append(output[0].numel()))
    size = (architecture(name).canvas.height, architecture(name).canvas.width)
    assert network(torch.zeros(1, 1, *size)).shape == (1, 10)
    assert sum(relus) == RELUS[name]
    assert network(torch.zeros(3, 1, *size)).shape == (3, 10)


def test_one_seed_one_network_without_touching_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (build(architecture("cnn4k"), seeded(seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="'resnet': unknown; wanted one of cnn4k, strided2"):
        architecture("resnet")
