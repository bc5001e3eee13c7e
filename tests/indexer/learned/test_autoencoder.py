"""The autoencoder's settings, network and loss, each against its definition."""

import numpy as np
import pytest
import torch

from indexer.learned.autoencoder import (
    Autoencoder,
    AutoencoderSettings,
    angular_similarities,
    cosine_similarities,
    similarity_loss,
)

CPU = torch.device("cpu")


def test_details_are_half_of_a_longer_code_and_none_of_a_short_one() -> None:
    lengths = [
        AutoencoderSettings(num_bits=num_bits).num_neighbourhood_bits
        for num_bits in (16, 64, 128, 136, 256, 1024)
    ]
    assert lengths == [16, 64, 128, 128, 128, 512]
    assert AutoencoderSettings(num_bits=256, detail_share=0).num_neighbourhood_bits == 256


def test_the_sharpness_grows_from_one_in_equal_steps() -> None:
    settings = AutoencoderSettings(num_bits=16, num_steps=4, sharpness=5.0)
    assert [settings.sharpness_at(step) for step in range(4)] == [1, 2, 3, 4]
    line = AutoencoderSettings(num_bits=16, num_steps=4, sharpness=0.0)
    assert [line.sharpness_at(step) for step in range(4)] == [0, 0, 0, 0]


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 3.0])
def test_a_bit_is_a_sign_and_its_gradient_that_of_a_tanh_as_sharp_as_asked(
    sharpness: float,
) -> None:
    network = Autoencoder(8, AutoencoderSettings(num_bits=16), CPU)
    components = torch.randn((32, 8), generator=torch.Generator().manual_seed(0))
    levels = network.scaling(components @ network.planes.T)
    bits, details = network.bits(components, torch.zeros_like(components), sharpness)
    assert details.shape == (32, 0)
    torch.testing.assert_close(bits, levels.sign())
    smooth = torch.tanh(sharpness * levels) if sharpness else levels.clamp(-1, 1)
    (gradient,) = torch.autograd.grad(bits.square().sum() / 2 + bits.sum(), network.planes)
    (expected,) = torch.autograd.grad(smooth, network.planes, levels.sign() + 1)
    torch.testing.assert_close(gradient, expected)


def test_only_neighbourhood_bits_see_the_noise() -> None:
    network = Autoencoder(8, AutoencoderSettings(num_bits=256), CPU)
    components = torch.randn((32, 8), generator=torch.Generator().manual_seed(0))
    without = network.bits(components, torch.zeros_like(components), 1.0)
    noise = torch.randn((32, 8), generator=torch.Generator().manual_seed(1))
    with_noise = network.bits(components, noise, 1.0)
    assert [bits.shape for bits in without] == [(32, 128), (32, 128)]
    assert not torch.equal(with_noise[0], without[0])
    assert torch.equal(with_noise[1], without[1])


def test_the_same_seed_gives_the_same_initial_weights() -> None:
    first, again, other = (
        Autoencoder(8, AutoencoderSettings(num_bits=16, seed=seed), CPU) for seed in (0, 0, 1)
    )
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])
    assert not torch.equal(first.planes, other.planes)


def test_the_similarity_loss_is_the_mean_squared_error_over_all_pairs() -> None:
    """Three codes: the first two agree in three of four bits, the third is the first's opposite."""
    bits = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, -1], [-1, -1, -1, -1]])
    wanted = torch.tensor([[9.0, 0.5, 0], [0.5, 9, 0], [0, 0, 9]])
    # Agreements 0.5, -1 and -0.5. An item's pair with itself does not count.
    expected = 2 * (0 + 1 + 0.25) / 6
    assert similarity_loss(bits, wanted).item() == pytest.approx(expected)
    assert similarity_loss(bits[:, :0], wanted).item() == 0


def test_similarities_follow_the_cosine_and_the_angle() -> None:
    degrees = np.array([0, 60, 90, 180])
    vectors = torch.tensor(np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], 1))
    cosines, angular = cosine_similarities(3 * vectors)[0], angular_similarities(3 * vectors)[0]
    assert cosines.tolist() == pytest.approx([1, 0.5, 0, -1], abs=1e-6)
    assert angular.tolist() == pytest.approx([1, 1 / 3, 0, -1], abs=1e-3)
