import math

import pytest

from seqnets.metrics import bits_per_character, perplexity


def test_bits_per_character_by_hand():
    # Three tokens of probabilities 1/2, 1/4 and 1/8 over four characters: 1 + 2 + 3 bits.
    nats = -sum(math.log(p) for p in (1 / 2, 1 / 4, 1 / 8))
    assert bits_per_character(nats, 4) == pytest.approx(1.5, rel=1e-14)


def test_bits_per_character_needs_characters():
    with pytest.raises(ValueError, match="characters"):
        bits_per_character(1.0, 0)


def test_perplexity_of_a_uniform_model_is_the_number_of_classes():
    assert perplexity(math.log(50)) == pytest.approx(50, rel=1e-14)


@pytest.mark.parametrize(("nats", "expected"), [(0.0, 1.0), (1e4, math.inf), (math.inf, math.inf)])
def test_perplexity_at_extremes(nats, expected):
    assert perplexity(nats) == expected


def test_perplexity_of_nan_is_nan():
    assert math.isnan(perplexity(math.nan))
