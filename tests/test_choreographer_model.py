"""The choreographer's network: patches, slopes, frame 0, an ignored sentence, its loss, its
weights, as a prior."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from generators.chord.priors.choreographer import weights  # noqa: E402
from generators.chord.priors.choreographer.config import SMALL, ChoreographerConfig  # noqa: E402
from generators.chord.priors.choreographer.model import (  # noqa: E402
    SLOPE_GAIN,
    LossOptions,
    VideoTransformer,
    _patches,
    _video,
    _with_slopes,
    flow_loss,
    velocity,
)
from generators.chord.priors.choreographer.prior import Choreographer  # noqa: E402
from generators.neurok.network import weights as neurok_weights  # noqa: E402

TINY = ChoreographerConfig(frames=4, size=12, patch=6, width=16, blocks=3, heads=2, text_width=8)


def network(seed: int = 0) -> VideoTransformer:
    """One whose output layers have left zero."""
    torch.manual_seed(seed)
    model = VideoTransformer(TINY)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return model.eval()


def inputs(count: int = 2, seed: int = 1):
    """Videos whose first frame is still, first frames, and sentences."""
    g = torch.Generator().manual_seed(seed)
    video = torch.rand(count, 4, 12, 12, 3, generator=g)
    video[:, 0] = 0
    first = torch.rand(count, 24, 24, 4, generator=g)
    return video, first, torch.randn(count, 8, generator=g), torch.ones(count, dtype=torch.bool)


def embed(sentences):
    return torch.stack([torch.full((8,), float(len(s))) for s in sentences])


def test_patches_come_back():
    video = torch.randn(2, 4, 12, 12, 3)
    tokens = _patches(video, 6)
    assert tokens.shape == (2, 4, 432)
    assert torch.equal(_video(tokens, TINY), video)
    assert torch.equal(tokens[1, 2].view(4, 6, 6, 3), video[1, :, 6:12, 0:6])


def test_slopes_are_taken_between_pixels_that_show_something():
    first = torch.zeros(1, 4, 5, 4)
    first[0, 1:3, 1:4, 3] = 1.0
    first[0, 1:3, 1:4, 0] = torch.tensor([0.0, 0.01, 0.03])
    first[0, 2, 1:4, 2] = 0.5
    slopes = _with_slopes(first)
    assert torch.equal(slopes[..., :4], first)
    across = slopes[0, 1, :, 7]
    assert torch.allclose(across, SLOPE_GAIN * torch.tensor([0.0, 0.0, 0.01, 0.02, 0.0]))
    down = slopes[0, :, 1, 6]
    assert torch.equal(down, torch.tensor([0.0, 0.0, 1.0, 0.0]))  # steep, but no more than one


def test_a_new_network_expects_that_nothing_moves():
    model = VideoTransformer(TINY)
    video, first, text, said = inputs()
    z = model.encode(video)
    assert (model(torch.randn_like(z), torch.rand(2), first, text, said) == 0).all()


def test_nothing_has_moved_at_frame_zero():
    model = network()
    video, first, text, said = inputs()
    guess = model(torch.randn_like(video), torch.rand(2), first, text, said)
    assert (guess[:, 0] == 0).all()
    assert guess[:, 1:].abs().max() > 1e-3


def test_every_pixel_depends_on_every_other_and_on_the_first_frame():
    model = network()
    video, first, text, said = inputs(1)
    z = model.encode(video).requires_grad_()
    first.requires_grad_()
    model(z, torch.full((1,), 0.5), first, text, said)[0, 1, 0, 0, 0].backward()
    assert (z.grad != 0).float().mean() > 0.9
    assert (first.grad != 0).float().mean() > 0.9


def test_an_ignored_sentence_is_ignored():
    model = network()
    z, first, text, said = inputs()
    tau = torch.full((2,), 0.7)
    one, other = (model(z, tau, first, t, ~said) for t in (text, -text))
    assert torch.equal(one, other)
    assert not torch.equal(model(z, tau, first, text, said), one)


def test_the_velocity_is_that_of_the_flow():
    z, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    for tau in (0.1, 0.5, 1.0):
        z_tau = (1 - tau) * z + tau * noise
        assert torch.allclose(velocity(z_tau, z, tau), noise - z, atol=1e-5)
    assert velocity(z, z + 1e-3, 0.0).abs().max() < 0.1


def test_the_loss_is_zero_for_the_clean_video_alone():
    video, first, text, _ = inputs(4)

    class Knows(VideoTransformer):
        def forward(self, z_tau, tau, first, text, said):
            return self.encode(video) + self.off

    model = Knows(TINY)
    model.off = 0.0
    loss, ratio = flow_loss(model, video, first, text, LossOptions())
    assert loss == 0
    assert ratio == 0
    model.off = 0.1
    loss, _ = flow_loss(
        model, video, first, text, LossOptions(weight_max=1.0, moving_weight=0.0, floor=1e6)
    )
    assert 1e6 * loss == pytest.approx(0.01, rel=1e-3)


def test_videos_count_for_what_share_of_their_motion_is_wrong():
    video, first, text, _ = inputs(1)
    options = LossOptions(weight_max=1.0, moving_weight=0.0, floor=1e-9)
    losses = [
        flow_loss(VideoTransformer(TINY), s * video, first, text, options)[0] for s in (1.0, 0.3)
    ]
    assert torch.allclose(torch.stack(losses), torch.ones(2), atol=1e-4)


def test_nothing_moves_has_ratio_one():
    video, first, text, _ = inputs(4)
    _, ratio = flow_loss(VideoTransformer(TINY), video, first, text, LossOptions())
    assert ratio == pytest.approx(1.0, rel=1e-5)


def test_it_learns_a_sentence():
    """Two words, two motions of one first frame."""
    torch.manual_seed(0)
    model = VideoTransformer(TINY)
    video, first = torch.zeros(2, 4, 12, 12, 3), torch.ones(2, 24, 24, 4)
    video[0, 1:, :6], video[1, 1:, 6:] = 0.3, 0.3
    text = torch.stack([torch.ones(8), -torch.ones(8)])
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, betas=(0.9, 0.99))
    for _ in range(300):
        loss, ratio = flow_loss(
            model, video, first, text, LossOptions(text_dropout=0.0, shift=100.0)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ratio < 0.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch": 5}, "size: expected a multiple of patch = 5, got 12"),
        ({"heads": 3}, "width: expected a multiple of heads = 3, got 16"),
        ({"frames": 0}, "frames: expected a whole number from 1, got 0"),
        ({"scale": 0.0}, "ChoreographerConfig.scale"),
    ],
)
def test_bad_sizes(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **fields)


def test_weights_come_back(tmp_path):
    model = network()
    path = weights.save(tmp_path / "tiny.safetensors", model, {"steps": 3}, dtype=torch.float32)
    again = weights.load(path)
    assert again.config == TINY
    assert weights.card(path) == {"steps": 3}
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    with pytest.raises(ValueError, match="not NeuROK weights"):
        neurok_weights.load(path)


def test_what_ships_is_small(tmp_path):
    path = weights.save(tmp_path / "small.safetensors", VideoTransformer(SMALL), {})
    assert path.stat().st_size < 30e6


def test_the_prior_reads_its_condition():
    prior = Choreographer(network(), embed=embed)
    assert (prior.frames, prior.height, prior.width, prior.sharpness, prior.paint) == (
        4,
        12,
        12,
        2,
        "scene_flow",
    )
    _, first, _, _ = inputs()
    condition = prior.condition("open", first)
    assert condition.text.shape == (2, 8)
    with pytest.raises(ValueError, match=r"first: expected frames \(B, 24, 24, 4\)"):
        prior.condition("open", first[:, :6])


def test_guidance_leads_away_from_what_is_expected_without_a_sentence():
    prior = Choreographer(network(), embed=embed)
    _, first, _, _ = inputs()
    condition = prior.condition("open", first)
    z = torch.randn(2, 4, 12, 12, 3)
    v = {g: prior.velocity(z, 0.6, condition, guidance=g) for g in (0.0, 1.0, 3.0)}
    assert v[1.0].dtype == torch.float32
    assert not torch.allclose(v[0.0], v[1.0], atol=1e-3)
    assert torch.allclose(v[3.0], v[0.0] + 3 * (v[1.0] - v[0.0]), atol=0.05)


def test_the_prior_encodes_linearly_and_with_a_gradient():
    prior = Choreographer(network(), embed=embed)
    video, _, _, _ = inputs()
    video.requires_grad_()
    z = prior.encode(video)
    z.sum().backward()
    assert torch.allclose(video.grad, torch.full_like(video, 1 / TINY.scale))
    assert torch.equal(prior.encode(2 * video), 2 * z)
