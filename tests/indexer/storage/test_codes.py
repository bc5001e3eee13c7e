"""Encoders: what a bit says, how an index keeps an encoder, and the lengths that codes can have."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.storage.codes import check_num_bits, encode_command, facts_of, load_encoder
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError, read_manifest
from tests.indexer.damage import flip
from tests.indexer.items import made_up_encoder
from training.errors import UserError


def test_a_bit_says_on_which_side_of_its_hyperplane_a_feature_lies() -> None:
    weights, thresholds = np.zeros((16, 4096), np.float32), np.zeros(16, np.float32)
    weights[np.arange(16), np.arange(16)] = 1
    thresholds[1] = 0.9
    encoder = replace(made_up_encoder(16), weights=weights, thresholds=thresholds)
    features = np.zeros((3, 4096), np.float32)
    features[0, [0, 1, 9]] = 5, 0.8, 5  # the second is not beyond 0.9
    features[1, 1] = 1
    assert encoder.encode(features).tolist() == [[0b1, 0b10], [0b10, 0], [0, 0]]


@pytest.mark.parametrize("num_bits", [0, 8, 20, 1032])
def test_a_length_that_a_code_cannot_have_is_refused(num_bits: int) -> None:
    assert [check_num_bits(number) for number in (16, 256, 1024)] == [16, 256, 1024]
    with pytest.raises(UserError, match="multiple of 8 from 16 to 1024"):
        check_num_bits(num_bits)


def test_an_index_without_an_encoder_has_no_codes(index: Path) -> None:
    opened = Index.open(index)
    assert opened.codes is None
    assert opened.stats().codes is None
    assert (load_encoder(index, opened.manifest), facts_of(opened.manifest)) == (None, None)


def test_an_encoder_is_read_as_it_was_written(coded: Path) -> None:
    encoder, written = load_encoder(coded, read_manifest(coded)), made_up_encoder()
    assert encoder is not None
    assert encoder.facts == facts_of(read_manifest(coded)) == written.facts
    np.testing.assert_array_equal(encoder.weights, written.weights)
    np.testing.assert_array_equal(encoder.thresholds, written.thresholds)


def test_a_damaged_encoder_is_refused_with_the_command_that_learns_it_again(coded: Path) -> None:
    manifest = read_manifest(coded)
    command = encode_command(coded, made_up_encoder().facts)
    assert command == f"lookalike index encode {coded} --bits 32"
    flip(coded / manifest.artefacts["autoencoder"].file, 4000)
    with pytest.raises(IndexDirectoryError, match=re.escape(f"to learn it again, run: {command}")):
        load_encoder(coded, manifest)
