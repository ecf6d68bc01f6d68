"""Gaussian splatting: one Gaussian by hand, the readable path against the compiled one and against
gsplat."""

import numpy as np
import pytest
import torch

from flowplan.geometry import inverse, look_at
from generators.chord.render import compositor, compositor_numba, splat
from generators.chord.render.compositor import Splats

WIDTH, HEIGHT = 21, 35  # neither is a multiple of a tile
PATHS = [compositor.rasterize, compositor_numba.rasterize]
GRADED = ("means", "quats", "scales", "opacities", "features")


def crowd(count=150, frames=2, channels=4, seed=0):
    """A scene with every case: hidden, off the view, behind the camera, opaque, clear."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(frames, count, 3)) * 0.15
    means[:, :4] *= 8  # off the view
    means[:, 4:6] += [3.0, 0.0, 0.0]  # behind one of the cameras
    opacities = rng.uniform(0.1, 0.95, count)
    opacities[6:10], opacities[10::4] = [0.001, 0.0039, 0.004, 0.0], 1.0
    eyes = [[1.2, 0.3, 0.4], [-0.2, 1.0, 0.8]]
    K = np.array([[40.0, 0.0, 9.0], [0.0, 38.0, 18.5], [0.0, 0.0, 1.0]])
    return {
        "means": torch.tensor(means),
        "quats": torch.tensor(rng.normal(size=(frames, count, 4))),
        "scales": torch.tensor(rng.uniform(0.004, 0.08, (count, 3))),
        "opacities": torch.tensor(opacities),
        "features": torch.tensor(rng.uniform(size=(2, frames, count, channels))),
        "viewmats": torch.tensor(np.stack([inverse(look_at(eye, [0.0, 0, 0])) for eye in eyes])),
        "Ks": torch.tensor(np.stack([K, K])),
    }


def drawn(rasterize, *, background=None, **given):
    """Images and alphas by one of the paths."""
    return rasterize(Splats(**given), background)


def one(depth=2.0, scale=0.1, opacity=0.8, focal=50.0, size=15):
    """A ball on the optical axis, in the middle of the middle pixel."""
    return {
        "means": torch.tensor([[[0.0, 0.0, depth]]]),
        "quats": torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]),
        "scales": torch.full((1, 3), scale),
        "opacities": torch.tensor([opacity]),
        "features": torch.tensor([[0.2, 0.7]]),
        "viewmats": torch.eye(4)[None],
        "Ks": torch.tensor([[[focal, 0.0, size / 2], [0.0, focal, size / 2], [0.0, 0.0, 1.0]]]),
        "width": size,
        "height": size,
    }


@pytest.mark.parametrize("rasterize", PATHS)
def test_one_gaussian_in_the_middle(rasterize):
    images, alphas = drawn(rasterize, **one())
    assert images.shape == (1, 1, 15, 15, 2)
    offset = torch.arange(15) - 7.0
    squared = offset[:, None].square() + offset.square()
    variance = (50 * 0.1 / 2) ** 2 + 0.3  # the perspective magnifies by f / z; eps2d
    expected = 0.8 * torch.exp(-0.5 * squared / variance)
    expected = torch.where(expected >= 1 / 255, expected, 0.0)
    assert (expected == 0).any()
    assert torch.allclose(alphas[0, 0], expected, atol=1e-6)
    assert torch.allclose(images[0, 0], expected[..., None] * torch.tensor([0.2, 0.7]), atol=1e-6)


@pytest.mark.parametrize("rasterize", PATHS)
def test_a_long_gaussian_lies_the_way_it_is_turned(rasterize):
    """Long along x, turned by 30 degrees about the optical axis: so is its image."""
    given = one(opacity=0.5, size=31)
    given["scales"] = torch.tensor([[0.2, 0.05, 0.05]])
    given["quats"] = torch.tensor([[[np.cos(np.pi / 12), 0.0, 0.0, np.sin(np.pi / 12)]]]).float()
    alphas = drawn(rasterize, **given, eps2d=0.0)[1][0, 0]
    y, x = torch.meshgrid(torch.arange(31) - 15.0, torch.arange(31) - 15.0, indexing="ij")
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    along, across = c * x + s * y, c * y - s * x
    expected = 0.5 * torch.exp(-0.5 * ((along / 5).square() + (across / 1.25).square()))
    assert torch.allclose(alphas, torch.where(expected >= 1 / 255, expected, 0.0), atol=1e-5)


@pytest.mark.parametrize("rasterize", PATHS)
@pytest.mark.parametrize("near_first", [True, False])
def test_the_nearer_one_is_in_front(rasterize, near_first):
    given = one()
    order = [0, 1] if near_first else [1, 0]
    given["means"] = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 2.0]]])[:, order]
    given["features"] = torch.eye(2)[order]
    given["opacities"] = torch.tensor([0.6, 0.5])[order]
    for name in ("quats", "scales"):
        given[name] = torch.cat([given[name]] * 2, dim=-2)
    images, alphas = drawn(rasterize, **given, background=torch.tensor([1.0, 0.0]))
    assert images[0, 0, 7, 7].tolist() == pytest.approx([0.6 + 0.4 * 0.5, 0.4 * 0.5])
    assert float(alphas[0, 0, 7, 7]) == pytest.approx(0.6 + 0.4 * 0.5)
    assert images[0, 0, 0, 0, 0] > 0.5


@pytest.mark.parametrize("rasterize", PATHS)
def test_what_the_camera_cannot_see_leaves_no_trace(rasterize):
    for depth, opacity in ((-2.0, 0.8), (0.005, 0.8), (2.0, 0.003)):
        given = one(depth=depth, opacity=opacity)
        given["means"].requires_grad_()
        images, alphas = drawn(rasterize, **given)
        assert not images.any()
        assert not alphas.any()
        (images.sum() + alphas.sum()).backward()
        assert not given["means"].grad.any()


@pytest.mark.parametrize("rasterize", PATHS)
def test_opaque_ones_hide_what_is_behind(rasterize):
    """0.999 twice leaves less than 1e-4: the second and all behind it are not drawn."""
    given = one()
    given["means"] = torch.tensor([[[0.0, 0.0, 1.0 + 0.1 * i] for i in range(4)]])
    given["features"] = torch.eye(4)
    given["opacities"] = torch.ones(4)
    for name in ("quats", "scales"):
        given[name] = torch.cat([given[name]] * 4, dim=-2)
    images, alphas = drawn(rasterize, **given)
    assert images[0, 0, 7, 7].tolist() == pytest.approx([0.999, 0, 0, 0])
    assert float(alphas[0, 0, 7, 7]) == pytest.approx(0.999)


def test_compiled_and_readable_agree_and_so_do_their_gradients():
    given = crowd()
    g = torch.Generator().manual_seed(1)
    background = torch.rand(4, generator=g).double()
    to_images = torch.randn(2, 2, HEIGHT, WIDTH, 4, generator=g).double()
    to_alphas = torch.randn(2, 2, HEIGHT, WIDTH, generator=g).double()
    found = []
    for rasterize in PATHS:
        own = {k: v.clone().requires_grad_(k in GRADED) for k, v in given.items()}
        images, alphas = drawn(rasterize, **own, width=WIDTH, height=HEIGHT, background=background)
        ((images * to_images).sum() + (alphas * to_alphas).sum()).backward()
        found.append((images.detach(), alphas.detach(), {k: own[k].grad for k in GRADED}))
    (images, alphas, gradients), (fast_images, fast_alphas, fast_gradients) = found
    assert alphas.max() > 0.999  # some pixels were done before their list was
    assert alphas.min() < 0.5
    assert torch.allclose(images, fast_images, atol=1e-10)
    assert torch.allclose(alphas, fast_alphas, atol=1e-10)
    for name in GRADED:
        assert gradients[name].abs().max() > 1e-2, name
        assert fast_gradients[name].numpy() == pytest.approx(
            gradients[name].numpy(), rel=1e-6, abs=1e-7
        ), name


def test_single_precision_is_as_good_as_its_rounding():
    given = crowd()
    images, alphas = drawn(compositor_numba.rasterize, **given, width=WIDTH, height=HEIGHT)
    single = {k: v.float() for k, v in given.items()}
    coarse_images, coarse_alphas = drawn(
        compositor_numba.rasterize, **single, width=WIDTH, height=HEIGHT
    )
    assert coarse_images.dtype == torch.float32
    # What is 1/255 opaque may be drawn by one and not by the other.
    assert (images - coarse_images).abs().max() < 2 / 255
    assert (alphas - coarse_alphas).abs().quantile(0.99) < 1e-5


def test_gradients_are_those_of_finite_differences():
    """Few and clear ones: no pixel is done early, and none crosses 1/255 by so little a step."""
    given = crowd(count=12, seed=3)
    given["opacities"] = torch.linspace(0.2, 0.7, 12).double()
    weight = torch.randn(
        2, 2, HEIGHT, WIDTH, 4, generator=torch.Generator().manual_seed(2)
    ).double()

    def loss(values):
        images, alphas = drawn(compositor_numba.rasterize, **values, width=WIDTH, height=HEIGHT)
        return (images * weight).sum() + (alphas * weight[..., 0]).sum()

    own = {k: v.clone().requires_grad_(k in GRADED) for k, v in given.items()}
    loss(own).backward()
    rng = np.random.default_rng(0)
    for name in GRADED:
        values = given[name]
        for _ in range(4):
            at = tuple(int(rng.integers(n)) for n in values.shape)
            kept, ends = values[at].clone(), []
            for step in (1e-7, -1e-7):
                values[at] = kept + step
                ends.append(float(loss(given)))
            values[at] = kept
            numeric = (ends[0] - ends[1]) / 2e-7
            assert float(own[name].grad[at]) == pytest.approx(numeric, rel=1e-4, abs=1e-4), (
                name,
                at,
            )


@pytest.mark.parametrize("rasterize", PATHS)
def test_features_broadcast_over_cameras_and_times(rasterize):
    given = crowd(count=20, frames=3)
    full = given.pop("features")
    shapes = {"all": full[0, 0], "by time": full[0], "by camera": full[:, :1], "in full": full}
    for features in shapes.values():
        features = features.clone().requires_grad_()
        images, _ = drawn(rasterize, **given, features=features, width=WIDTH, height=HEIGHT)
        spread = features.detach().expand(2, 3, 20, 4).clone().requires_grad_()
        expected, _ = drawn(rasterize, **given, features=spread, width=WIDTH, height=HEIGHT)
        assert torch.equal(images, expected)
        images.square().sum().backward()
        expected.square().sum().backward()
        summed = spread.grad.sum_to_size((1,) * (4 - features.ndim) + features.shape).reshape(
            features.shape
        )
        assert torch.allclose(features.grad, summed)


def test_the_number_of_threads_changes_no_bit():
    given = crowd(frames=5)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            own = {k: v.clone().requires_grad_(k in GRADED) for k, v in given.items()}
            images, alphas = drawn(compositor_numba.rasterize, **own, width=WIDTH, height=HEIGHT)
            (images.square().sum() + alphas.sum()).backward()
            found.append([images.detach(), alphas.detach(), *(own[k].grad for k in GRADED)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_projection_is_gsplats():
    """Against the functions of gsplat that run on a processor."""
    reference = pytest.importorskip("gsplat.cuda._torch_impl", reason="gsplat is not installed")
    given = crowd()
    means, quats, scales, viewmats, Ks = (
        given[k] for k in ("means", "quats", "scales", "viewmats", "Ks")
    )
    opacities = torch.full((150,), 0.5).double()
    seen = compositor.project(
        Splats(**given | {"opacities": opacities}, width=WIDTH, height=HEIGHT)
    )
    for t in range(2):
        covars, _ = reference._quat_scale_to_covar_preci(quats[t], scales, compute_preci=False)
        _, centers, depths, conics, _ = reference._fully_fused_projection(
            means[t], covars, viewmats, Ks, WIDTH, HEIGHT
        )
        visible = depths > 0.01
        assert 0 < (~visible).sum() < 10
        assert torch.equal(torch.isfinite(seen.depths[:, t]), visible)
        for own, theirs in ((seen.depths, depths), (seen.means, centers), (seen.conics, conics)):
            assert own[:, t][visible].numpy() == pytest.approx(
                theirs[visible].numpy(), rel=1e-6, abs=1e-9
            )


def test_extents_enclose_what_is_drawn():
    """One at a time: no pixel outside the box that tiles are listed by is touched."""
    given = crowd(count=30)
    seen = compositor.project(Splats(**given, width=WIDTH, height=HEIGHT))
    at = torch.stack(
        torch.meshgrid(torch.arange(WIDTH) + 0.5, torch.arange(HEIGHT) + 0.5, indexing="xy"), -1
    )
    d = at - seen.means[..., None, None, :]
    a, b, c = seen.conics[..., None, None, :].unbind(-1)
    sigma = 0.5 * (a * d[..., 0] ** 2 + c * d[..., 1] ** 2) + b * d[..., 0] * d[..., 1]
    drawn = given["opacities"][:, None, None] * torch.exp(-sigma) >= 1 / 255
    drawn &= torch.isfinite(seen.depths)[..., None, None]
    outside = (d.abs() > seen.extents[..., None, None, :] + 1e-9).any(-1)
    assert drawn.any()
    assert not (drawn & outside).any()


@pytest.mark.gpu
def test_gsplat_on_a_gpu_draws_the_same(gpu_check):
    pytest.importorskip("gsplat")
    given = {k: v.float() for k, v in crowd().items()}
    weight = torch.randn(2, 2, HEIGHT, WIDTH, 4, generator=torch.Generator().manual_seed(1))
    found = []
    for device in ("cpu", "cuda"):
        own = {k: v.to(device).requires_grad_(k in GRADED) for k, v in given.items()}
        images, alphas = drawn(
            splat.rasterize,
            **own,
            width=WIDTH,
            height=HEIGHT,
            background=torch.tensor([0.1, 0.2, 0.3, 0.4], device=device),
        )
        ((images * weight.to(device)).sum() + alphas.sum()).backward()
        found.append(
            [x.detach().cpu() for x in (images, alphas)] + [own[k].grad.cpu() for k in GRADED]
        )
    for name, ours, theirs in zip(("images", "alphas", *GRADED), *found, strict=True):
        off = (ours - theirs).abs() / ours.abs().max()
        # A splat of almost 1/255 opacity is drawn by one of the two only: hence the quantile.
        gpu_check(f"chord/gsplat/{name}", off.quantile(0.99).item(), 1e-3)


@pytest.mark.gpu
def test_without_gsplat_a_gpu_scene_is_drawn_on_the_cpu(gpu_check, monkeypatch):
    monkeypatch.setattr(splat, "_gsplat_installed", lambda: False)
    given = {k: v.float() for k, v in crowd().items()}
    found = []
    for device in ("cpu", "cuda"):
        own = {k: v.to(device) for k, v in given.items()}
        own["means"].requires_grad_()
        images, _ = drawn(splat.rasterize, **own, width=WIDTH, height=HEIGHT)
        images.square().sum().backward()
        assert images.device.type == device
        found.append((images.detach().cpu(), own["means"].grad.cpu()))
    for name, ours, theirs in zip(("images", "means"), *found, strict=True):
        gpu_check(f"chord/compositor/{name}", (ours - theirs).abs().max().item(), 1e-4)


def test_shapes_that_do_not_fit_are_named():
    given = crowd(count=20)
    size = {"width": WIDTH, "height": HEIGHT}
    for rasterize in PATHS:
        with pytest.raises(ValueError, match=r"scales: expected shape \(20, 3\), got \(19, 3\)"):
            drawn(rasterize, **given | {"scales": given["scales"][1:]}, **size)
        with pytest.raises(
            ValueError, match=r"features: expected a shape that broadcasts .* got \(2, 20, 3, 4\)"
        ):
            drawn(rasterize, **given | {"features": torch.zeros(2, 20, 3, 4).double()}, **size)
        with pytest.raises(
            ValueError, match="features: expected torch.float64, as means are, got torch.float32"
        ):
            drawn(rasterize, **given | {"features": given["features"].float()}, **size)
        with pytest.raises(ValueError, match=r"means: expected shape \(T, G, 3\)"):
            drawn(rasterize, **given | {"means": given["means"][0]}, **size)
