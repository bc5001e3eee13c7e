import pytest

from benchmarks.training_speed import summary

RATES = {
    "bare": [200.0, 100.0, 200.0],
    "loop": [150.0, 80.0, 150.0],
    "bare_as_torchvision": [100.0, 100.0, 100.0],
    "loop_as_torchvision": [90.0, 90.0, 90.0],
    "torchvision": [50.0, 40.0, 50.0],
}


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    figures = summary(RATES, decode_s=0.01, num_epochs=10)
    assert figures["loop_share_of_bare"] == 0.75
    assert figures["loop_over_torchvision"] == 3
    assert figures["loop_as_torchvision_over_torchvision"] == 1.8
    assert figures["images_per_s"]["loop"] == 150
    assert figures["images_per_s_lowest_and_highest"]["loop"] == [80, 150]


def test_decoding_is_spread_over_the_epochs() -> None:
    figures = summary(RATES, decode_s=0.01, num_epochs=10)
    assert figures["decoding_images_per_s"] == 100
    expected = 1 / (1 / 150 + 0.001) / 50
    assert figures["loop_with_decoding_over_torchvision"] == pytest.approx(expected, abs=1e-3)
