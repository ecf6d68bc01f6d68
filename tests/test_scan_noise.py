"""The depth-noise model against the figures it is made of."""

import numpy as np
import pytest

from flowplan.scan import NoiseOptions, noisy_depth
from flowplan.scan.depth.noise import depth_edges

SILENT = NoiseOptions(
    disparity_sigma=0,
    disparity_step=0,
    lateral_sigma=0,
    dropout=0,
    edge_dropout=0,
    edge_jump=0,
    near=0,
)


def test_without_noise_the_image_comes_back():
    depth = np.linspace(0.4, 2, 600).reshape(20, 30)
    depth[3, 4] = 0
    assert np.allclose(noisy_depth(depth, np.random.default_rng(0), SILENT), depth, atol=1e-6)


@pytest.mark.parametrize("z", [0.6, 0.9, 1.8])
def test_sigma_grows_with_the_square_of_the_depth(z):
    options = NoiseOptions(disparity_step=0, dropout=0)
    out = noisy_depth(np.full((200, 200), z), np.random.default_rng(0), options)
    assert out.std() == pytest.approx(
        options.disparity_sigma * z**2 / options.focal_baseline, rel=0.03
    )
    assert out.mean() == pytest.approx(z, abs=3e-4)


def test_depths_fall_on_the_sensors_steps():
    options = NoiseOptions()
    out = noisy_depth(np.full((50, 50), 0.9), np.random.default_rng(0), options)
    steps = options.focal_baseline / out[out > 0] / options.disparity_step
    assert np.allclose(steps, np.round(steps), atol=1e-3)


def test_edges_lose_pixels_and_flat_parts_do_not():
    depth = np.full((100, 100), 0.8)
    depth[:, 50:] = 1.2
    out = noisy_depth(depth, np.random.default_rng(0), NoiseOptions(lateral_sigma=0))
    lost = out == 0
    edge = depth_edges(depth, 0.03)
    assert edge.sum() == 200
    assert 0.35 < lost[edge].mean() < 0.65
    assert lost[~edge].mean() < 0.01


def test_nothing_returns_from_nothing_or_from_too_far():
    depth = np.array([[0.0, 0.1], [1.0, 9.0]])
    out = noisy_depth(
        depth, np.random.default_rng(0), NoiseOptions(lateral_sigma=0, dropout=0, edge_dropout=0)
    )
    assert (out > 0).tolist() == [[False, False], [True, False]]


def test_the_same_seed_gives_the_same_noise():
    depth = np.full((20, 20), 0.7)
    a, b, c = (noisy_depth(depth, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize(
    ("field", "value"),
    [("focal_baseline", 0), ("dropout", 1.5), ("disparity_sigma", -1), ("far", np.nan)],
)
def test_bad_options_name_their_field(field, value):
    with pytest.raises(ValueError, match=f"NoiseOptions.{field}"):
        NoiseOptions(**{field: value})
