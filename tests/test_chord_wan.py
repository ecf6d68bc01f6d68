"""Wan as a prior, on tiny networks: diffusers' own pipeline is the truth for what the transformers
see."""

import importlib
import json
import shutil
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

pytest.importorskip("diffusers")

from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.wan import pipeline_wan_i2v
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

import generators.chord.priors.wan
from experiments.chord.bench_wan import bench_choreographer, benchmark
from flowplan.cli import main
from flowplan.geometry import pose
from flowplan.scene import Prompt, Scene, SceneObject
from generators.chord.distill.loop import distill
from generators.chord.generate import from_prior, load_prior
from generators.chord.options import (
    PAPER,
    ControlOptions,
    GaussianOptions,
    StageOptions,
    default_options,
)
from generators.chord.priors.choreographer.config import ChoreographerConfig
from generators.chord.priors.wan import linear, memory
from generators.chord.priors.wan.config import A14B, LEVELS, TI2V_5B
from generators.chord.priors.wan.folder import describe
from generators.chord.priors.wan.load import load
from generators.chord.priors.wan.memory import LiveStorage, free_memory, plan, settle
from generators.chord.priors.wan.options import WanOptions
from generators.chord.priors.wan.parts import BlankParts, FolderParts
from generators.chord.priors.wan.prior import WanPrior

OPTIONS = WanOptions(
    frames=9,
    height=32,
    width=64,
    cameras=2,
    negative="still",
    dtype="float32",
    vae_dtype="float32",
    device="cpu",
    spare=0,
)
SMALL = replace(
    PAPER,
    iterations=3,
    views=2,
    density="shift",  # of three noise levels one is the first expert's
    split_iteration=0.0,
    stage=StageOptions(gaussians=GaussianOptions(count=100, iterations=0, color=(0.8, 0.3, 0.1))),
    control=ControlOptions(coarse=8, fine=16, surface_points=200),
)
FROM_WAN_ALONE = replace(SMALL, temporal_weight=(0.0, 0.0), rigid_weight=(0.0, 0.0))
KINDS = ("a14b", "ti2v_5b")
WORDS = ["<pad>", "</s>", "<unk>", "a", "lid", "closes", "still"]


def tokenizer():
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def pipeline(kind):
    """A random pipeline: 30 000 parameters a transformer."""
    torch.manual_seed(0)
    levels = kind == "ti2v_5b"
    latent = 8
    vae = {"base_dim": 4, "z_dim": latent, "dim_mult": [1] * 4, "num_res_blocks": 1}
    vae |= {
        "latents_mean": [0.1 * i for i in range(latent)],
        "latents_std": [1 + 0.1 * i for i in range(latent)],
    }
    if levels:
        vae |= {
            "is_residual": True,
            "in_channels": 12,
            "out_channels": 12,
            "patch_size": 2,
            "scale_factor_spatial": 16,
        }
    network = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "text_dim": 32,
    }
    network |= {
        "freq_dim": 256,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_max_seq_len": 32,
        "out_channels": latent,
    }
    network["in_channels"] = latent if levels else 2 * latent + 4
    text = UMT5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
    return WanImageToVideoPipeline(
        tokenizer=tokenizer(),
        text_encoder=UMT5EncoderModel(text).eval(),
        vae=AutoencoderKLWan(**vae).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=WanTransformer3DModel(**network).eval(),
        transformer_2=None if levels else WanTransformer3DModel(**network).eval(),
        boundary_ratio=None if levels else 0.9,
        expand_timesteps=levels,
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    out = {}
    for kind in KINDS:
        out[kind] = tmp_path_factory.mktemp(kind)
        pipeline(kind).save_pretrained(out[kind])
    return out


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def prior(kind, folders):
    return load(folders[kind], OPTIONS)


@pytest.fixture(scope="module")
def pipe(kind):
    return pipeline(kind)


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of A14B's folder, to be spoilt."""
    return shutil.copytree(folders["a14b"], tmp_path / "wan")


def video(*, seed=0, count=2, frames=9, height=32, width=64):
    return torch.rand(
        count, frames, height, width, 3, generator=torch.Generator().manual_seed(seed)
    )


def gradient(prior, forget, pixels):
    """Of a weighted sum of the latent, by the pixels."""
    pixels = pixels.clone().requires_grad_()
    z = prior.encoder(pixels, forget)
    weight = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((z * weight).sum(), pixels)[0]


def test_shapes_are_the_real_ones():
    assert A14B.latent_shape(41, 464, 832) == (16, 11, 58, 104)
    assert TI2V_5B.latent_shape(41, 448, 832) == (48, 11, 28, 52)
    options = WanOptions(device="meta")
    billions = [
        sum(p.numel() for p in BlankParts(config, options).expert("transformer").parameters()) / 1e9
        for config in (A14B, TI2V_5B)
    ]
    assert billions == pytest.approx([14.29, 5.0], abs=0.01)


def test_latents_are_those_of_the_pipeline(prior, pipe):
    z = prior.encode(video())
    assert z.shape == (2, *prior.config.latent_shape(9, 32, 64))
    raw = pipe.vae.encode((2 * video() - 1).permute(0, 4, 1, 2, 3)).latent_dist.mode()
    mean, std = (
        torch.tensor(getattr(pipe.vae.config, f"latents_{k}")).view(1, -1, 1, 1, 1)
        for k in ("mean", "std")
    )
    torch.testing.assert_close(z, (raw - mean) / std)


def test_transformers_see_what_the_pipeline_shows_them(prior, pipe, kind, monkeypatch):
    monkeypatch.setattr(pipeline_wan_i2v, "basic_clean", str.strip)  # its own wants ftfy
    seen, asked = [], []
    for name in ("transformer", "transformer_2")[: 1 if kind == "ti2v_5b" else 2]:
        getattr(pipe, name).register_forward_pre_hook(
            lambda _, args, kwargs, name=name: seen.append((name, kwargs)), with_kwargs=True
        )
    z = torch.randn(
        1, *prior.config.latent_shape(9, 32, 64), generator=torch.Generator().manual_seed(2)
    )
    first = video(count=1)[:, 0]
    pipe.set_progress_bar_config(disable=True)
    states = [z]
    pipe(
        first.permute(0, 3, 1, 2),
        "a lid closes",
        "still",
        32,
        64,
        9,
        4,
        guidance_scale=7.0,
        latents=z.clone(),
        output_type="latent",
        callback_on_step_end=lambda p, i, t, k: states.append(k["latents"]) or k,
    )
    condition = prior.condition("a lid closes", first)
    levels = pipe.scheduler.timesteps
    assert len(seen) == 2 * len(levels)
    for i, t in enumerate(levels):
        asked.clear()
        network = prior._expert_for(float(t) / LEVELS)
        handle = network.register_forward_pre_hook(
            lambda _, args, kwargs: asked.append(kwargs), with_kwargs=True
        )
        v = prior.velocity(states[i], float(t) / LEVELS, condition, guidance=7.0)
        handle.remove()
        assert prior._expert[0] == seen[2 * i][0]
        for ours, (_, theirs) in zip(asked, seen[2 * i : 2 * i + 2], strict=True):
            for key in ("hidden_states", "encoder_hidden_states"):
                torch.testing.assert_close(ours[key], theirs[key])
            torch.testing.assert_close(ours["timestep"], theirs["timestep"].float())
        sigma = pipe.scheduler.sigmas
        later = (
            slice(1, None) if kind == "ti2v_5b" else slice(None)
        )  # it draws over its first frame, at the end
        moved = states[i] + (sigma[i + 1] - sigma[i]) * v
        torch.testing.assert_close(
            moved[:, :, later], states[i + 1][:, :, later], atol=1e-4, rtol=1e-4
        )


def test_velocity_leads_from_data_to_noise():
    """The sign convention v = eps - z, by the scheduler of the pipeline."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(1)
    z, eps = torch.randn(2, 1, 4, 2, 3, 3)
    sigma = scheduler.sigmas[0]
    out = scheduler.step(
        eps - z, scheduler.timesteps[0], (1 - sigma) * z + sigma * eps, return_dict=False
    )[0]
    torch.testing.assert_close(out, z)


class Known(BlankParts):
    """An expert with one answer for the sentence and one for its negative; it counts."""

    def __init__(self, config, options, answers):
        super().__init__(config, options)
        self.answers, self.asked, self.made = answers, [], []

    def expert(self, name):
        self.asked.append((name, [network() for network in self.made]))
        network = Answer(self.answers)
        self.made.append(weakref.ref(network))
        return network

    def sentences(self, texts):
        return torch.stack([torch.full((512, 4), float(i)) for i, _ in enumerate(texts)])


class Answer(torch.nn.Module):
    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def forward(self, hidden_states, timestep, encoder_hidden_states, return_dict):
        return (self.answers[int(encoder_hidden_states[0, 0, 0])],)


def lid():
    return Scene((SceneObject("lid", trimesh.creation.box((0.2, 0.2, 0.02)), pose()),), None)


def furthest(motion):
    """How far a vertex gets from where it was, in each frame."""
    (v,) = motion.vertices
    return np.linalg.norm(v - v[0], axis=2).max(1)


@pytest.mark.parametrize("gradient", ["exact", "linear"])
def test_motion_is_distilled_from_wan(kind, gradient, folders, monkeypatch):
    """Nothing but the prior moves anything here: what moves was reached by its gradient."""
    read = []
    real = FolderParts.expert
    monkeypatch.setattr(
        FolderParts, "expert", lambda self, name: read.append(name) or real(self, name)
    )
    prior = load(folders[kind], replace(OPTIONS, gradient=gradient))
    found = distill(lid(), "a lid closes", prior, FROM_WAN_ALONE)
    assert found.residuals.shape == (3,)
    assert np.isfinite(found.residuals).all()
    assert (found.residuals > 0).all()
    assert found.motion.vertices[0].shape == (9, 8, 3)
    assert np.isfinite(found.motion.vertices[0]).all()
    assert (furthest(found.motion)[1:] > 1e-4).all()
    assert read == (["transformer"] if kind == "ti2v_5b" else ["transformer", "transformer_2"])


def test_wan_by_name_moves_a_scene(folders, monkeypatch):
    monkeypatch.setattr("generators.chord.priors.wan.load.WanOptions", lambda: OPTIONS)
    name = f"wan:{folders['ti2v_5b']}"
    assert default_options(name) == PAPER
    prior = load_prior(name)
    assert prior.config.token_levels
    (motion,) = from_prior(prior, SMALL)(lid(), Prompt("a lid closes"))
    assert furthest(motion)[0] == 0 < furthest(motion)[1:].min()
    with pytest.raises(ValueError, match="weights: no folder /nowhere/wan"):
        load_prior("wan:/nowhere/wan")


def test_package_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ImportError, match="run `pip install 'diffusers"):
        importlib.reload(generators.chord.priors.wan)


def test_guidance_leads_away_from_the_negative(kind, folders):
    config = describe(folders[kind])
    shape = (1, *config.latent_shape(9, 32, 64))
    positive, negative = torch.randn(2, *shape)
    prior = WanPrior(config, Known(config, OPTIONS, [positive, negative]), OPTIONS)
    condition = prior.condition("a lid closes", video(count=1)[:, 0])
    for guidance in (1.0, 7.0):
        v = prior.velocity(torch.randn(shape), 0.5, condition, guidance=guidance)
        expected = negative + guidance * (positive - negative)
        torch.testing.assert_close(v[:, :, 1:], expected[:, :, 1:])


def test_true_velocity_leaves_no_gradient(kind, folders):
    config = describe(folders[kind])
    prior = WanPrior(config, BlankParts(config, OPTIONS), OPTIONS)
    pixels = video(count=1)
    z = prior.encode(pixels)
    eps, tau = torch.randn_like(z), 0.7
    prior.parts = Known(config, OPTIONS, [eps - z, eps - z])
    condition = prior.condition("a lid closes", pixels[:, 0])
    v = prior.velocity((1 - tau) * z + tau * eps, tau, condition, guidance=12.0)
    torch.testing.assert_close(v - eps + z, torch.zeros_like(z), atol=1e-4, rtol=0)


def test_given_frame_has_no_gradient_whatever_the_network_says(folders):
    config = describe(folders["ti2v_5b"])
    prior = WanPrior(config, BlankParts(config, OPTIONS), OPTIONS)
    pixels = video(count=1)
    z = prior.encode(pixels)
    eps, tau = torch.randn_like(z), 0.7
    prior.parts = Known(config, OPTIONS, torch.randn(2, *z.shape))
    condition = prior.condition("a lid closes", pixels[:, 0])
    g = prior.velocity((1 - tau) * z + tau * eps, tau, condition, guidance=12.0) - eps + z
    assert g[:, :, 0].abs().max() < 1e-4 < 0.1 < g[:, :, 1:].abs().max()


def test_experts_are_swapped_once_and_one_at_a_time(folders):
    config = describe(folders["a14b"])
    shape = (1, *config.latent_shape(9, 32, 64))
    parts = Known(config, OPTIONS, torch.zeros(2, *shape))
    prior = WanPrior(config, parts, OPTIONS)
    condition = prior.condition("a lid closes", video(count=1)[:, 0])
    for tau in (1.0, 0.95, 0.9, 0.8999, 0.5, 0.01):
        prior.velocity(torch.zeros(shape), tau, condition, guidance=2.0)
    assert [name for name, _ in parts.asked] == ["transformer", "transformer_2"]
    prior.condition("a lid closes", video(count=1)[:, 0])
    assert prior._expert is not None  # a sentence that is known needs no room
    prior.condition("a door closes", video(count=1)[:, 0])
    assert prior._expert is None
    prior.velocity(torch.zeros(shape), 1.0, condition, guidance=2.0)
    assert all(network is None for _, before in parts.asked for network in before), (
        "two experts at a time"
    )


def test_text_encoder_is_read_once_a_sentence(folders, monkeypatch):
    counted = []
    real = FolderParts.sentences
    monkeypatch.setattr(
        FolderParts,
        "sentences",
        lambda self, texts: counted.append(list(texts)) or real(self, texts),
    )
    prior = load(folders["a14b"], OPTIONS)
    first = video(count=1)[:, 0]
    one, two = (prior.condition("a lid closes", first) for _ in range(2))
    prior.condition("a", first)
    assert counted == [["a lid closes", "still"], ["a"]]
    assert one.text is two.text
    assert one.text[0, 4:].abs().max() == 0 < one.text[0, :4].abs().min()


@pytest.mark.parametrize("forget", ["chunks", "videos"])
def test_gradients_are_equal_whatever_is_computed_again(prior, forget):
    exact = gradient(prior, "nothing", video())
    torch.testing.assert_close(gradient(prior, forget, video()), exact, rtol=1e-4, atol=1e-6)


def test_computing_again_takes_less_memory(prior):
    peaks = []
    for forget in ("nothing", "chunks", "videos"):
        with LiveStorage("cpu") as live:
            gradient(prior, forget, video(count=3, frames=17))
        peaks.append(live.peak)
    assert peaks[0] > 1.5 * peaks[1]
    # TI2V-5B keeps so little here that the pixels are the peak of both.
    assert peaks[1] >= peaks[2] if prior.config.token_levels else peaks[1] > 1.1 * peaks[2]


def test_live_storage_counts_what_is_alive():
    with LiveStorage("cpu") as live:
        a = torch.zeros(1000)
        b = a[10:] + 1
        c = b.view(-1, 2)
        assert live.now == 4000 + 3960
        del a, b
        assert live.now == 3960
        del c
        assert live.now == 0
        assert live.peak == 4000 + 3960


@pytest.mark.parametrize("way", [{"gradient": "exact"}, {"gradient": "linear"}])
def test_plan_is_what_an_iteration_takes(kind, folders, way):
    options = replace(OPTIONS, **way)
    config = describe(folders[kind])
    planned = plan(config, options, "videos")
    with LiveStorage("cpu") as live:
        prior = WanPrior(config, BlankParts(config, options), options)
        condition = prior.condition("a lid closes", video()[:, 0])
        live.peak = live.now
        pixels = video().requires_grad_()
        z = prior.encode(pixels)
        (z * prior.velocity(z.detach(), 1.0, condition, guidance=2.0)).sum().backward()
    assert planned.iterating == pytest.approx(live.peak / memory.GIB, rel=0.1)


def test_too_little_memory_says_how_much_and_what_to_change(folders):
    config = describe(folders["a14b"])
    options = replace(OPTIONS, height=128, width=128, frames=17, cameras=4)
    need = {
        forget: plan(config, options, forget).needed for forget in ("nothing", "chunks", "videos")
    }
    assert settle(config, options, need["nothing"]) == "nothing"
    assert settle(config, options, need["chunks"]) == "chunks"
    assert settle(config, options, need["videos"]) == "videos"
    with pytest.raises(
        ValueError, match="128 x 128, 17 frames and 4 cameras needs .* are missing; take "
    ) as error:
        settle(config, options, 0.9 * need["videos"])
    assert "\n" not in str(error.value)
    advice = str(error.value).split("; take ")[1].split(", or ")[0]
    changed = {k: int(v) if v.isdigit() else v for k, v in (c.split("=") for c in advice.split())}
    assert plan(config, replace(options, **changed), "videos").needed <= 0.9 * need["videos"]
    with pytest.raises(ValueError, match="even gradient=linear cameras=1 height=64 width=64 needs"):
        settle(config, options, 1e-4)


def test_latents_are_true_without_going_through_the_encoder(prior):
    pixels = video(count=1)
    torch.testing.assert_close(linear.encode_linear(prior.encoder, pixels), prior.encoder(pixels))


def test_linear_gradient_is_exact_for_a_linear_encoder():
    """Where the encoder is one kernel everywhere, that kernel is found."""
    generator = torch.Generator().manual_seed(0)
    truth = linear.LinearEncoder(
        torch.randn(5, 3, 8, 8, generator=generator),
        torch.randn(5, 12, 8, 8, generator=generator),
        2,
    )
    pixels = video(count=1, height=192, width=256).requires_grad_()
    found = linear.fit(truth, pixels.detach(), truth(pixels.detach()))
    torch.testing.assert_close(found.first, truth.first, atol=0.05, rtol=0.05)
    torch.testing.assert_close(found.later, truth.later, atol=0.05, rtol=0.05)
    z, exact = linear.encode_linear(truth, pixels), truth(pixels)
    weight = torch.randn(z.shape, generator=generator)
    around, through = (torch.autograd.grad((x * weight).sum(), pixels)[0] for x in (z, exact))
    torch.testing.assert_close(around, through, atol=0.05, rtol=0.05)


def test_benchmark_measures_every_stage(kind, folders):
    records = benchmark({"tiny": describe(folders[kind])}, OPTIONS, iterations=1)
    values = {r["key"]: r["value"] for r in records}
    stages = ("condition", "encode", "velocity", "gradient", "iteration")
    for way in ("exact", "linear"):
        key = f"chord/wan/tiny/{way}"
        assert values[f"{key}/iteration_s"] == pytest.approx(
            sum(values[f"{key}/{s}_s"] for s in stages[:-1]), abs=1e-3
        )
        assert f"{key}/planned_gib" in values
    assert all(set(r) == {"key", "value", "unit", "direction", "n"} for r in records)
    with pytest.raises(ValueError, match="are missing"):
        benchmark({"tiny": describe(folders[kind])}, replace(OPTIONS, spare=1e6))


def test_benchmark_measures_the_choreographer():
    config = ChoreographerConfig(frames=8, size=24, width=32, blocks=1, heads=2)
    (record,) = bench_choreographer("cpu", config, replace(SMALL, views=1), iterations=2)
    assert record["value"] > 0
    assert record | {"value": 0} == {
        "key": "chord/choreographer/iteration_s",
        "value": 0,
        "unit": "s",
        "direction": "down",
        "n": 2,
    }


def test_benchmark_by_command_needs_a_gpu(monkeypatch, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    monkeypatch.setattr(sys, "argv", ["flowplan", "bench", "wan"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "Wan needs an NVIDIA GPU" in " ".join(capsys.readouterr().err.split())


@pytest.mark.gpu
def test_tiny_wan_runs_on_a_gpu(kind, folders, gpu_check):
    options = replace(OPTIONS, device="cuda", dtype="bfloat16", vae_dtype="bfloat16")
    records = benchmark({"tiny": describe(folders[kind])}, options, iterations=1)
    assert {r["key"].rsplit("/", 1)[1] for r in records} >= {
        "iteration_s",
        "planned_gib",
        "peak_gib",
    }
    prior = load(folders[kind], options)
    found = distill(lid(), "a lid closes", prior, FROM_WAN_ALONE)
    assert (furthest(found.motion)[1:] > 1e-4).all()


@pytest.mark.gpu
def test_one_step_of_wan_is_the_same_on_a_gpu(kind, folders, gpu_check):
    """Latent, velocity and the gradient of the pixels, of random weights in float32."""
    found = []
    for device in ("cpu", "cuda"):
        prior = load(folders[kind], replace(OPTIONS, device=device))
        pixels = video().to(device).requires_grad_()
        condition = prior.condition("a lid closes", video()[:, 0].to(device))
        z = prior.encode(pixels)
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(3)).to(device)
        v = prior.velocity((z + noise).detach() / 2, 0.5, condition, guidance=7.0)
        (z * (v - noise + z.detach())).mean().backward()
        found.append([x.detach().float().cpu() for x in (z, v, pixels.grad)])
    for name, cpu, gpu in zip(("latent", "velocity", "gradient"), *found, strict=True):
        off = (cpu - gpu).abs().max() / cpu.abs().max()
        gpu_check(f"chord/wan/{kind}/{name}", off.item(), 1e-2)  # convolutions in TF32


def test_folder_that_is_not_there():
    with pytest.raises(ValueError, match="weights: no folder /nowhere/wan; expected one"):
        load("/nowhere/wan", OPTIONS)


def test_name_that_the_hub_does_not_know(monkeypatch):
    def gone(*_, **__):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", gone)
    with pytest.raises(
        ValueError, match=r"no folder some/model here, and .* the hub \(no route to host\); give"
    ):
        load("some/model", OPTIONS)


def test_repository_on_the_hub_is_described_before_it_is_got(folders, monkeypatch):
    got = []

    def snapshot(name, allow_patterns):
        got.append((name, allow_patterns))
        return str(folders["a14b"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    load("owner/wan", OPTIONS)
    (_, small), (_, large) = got
    assert not any("safetensors" in f for f in small)
    assert {f.split("/")[0] for f in large} == {
        "transformer",
        "transformer_2",
        "vae",
        "text_encoder",
    }
    assert all(f.endswith((".safetensors", ".json")) for f in large)
    with pytest.raises(ValueError, match="are missing"):
        load("owner/wan", replace(OPTIONS, spare=1e6))
    assert len(got) == 3, "nothing large is got for what does not fit"


def test_device_that_is_not_there(folders):
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(
        ValueError, match="WanOptions.device: no cuda on this machine .* the choreographer"
    ):
        load(folders["a14b"], replace(OPTIONS, device="cuda"))
    with pytest.raises(ValueError, match="WanOptions.device: got 'gpu'"):
        load(folders["a14b"], replace(OPTIONS, device="gpu"))


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def spoil_index(folder):
    (folder / "model_index.json").unlink()


def spoil_class(folder):
    edit(folder / "model_index.json", _class_name="FluxPipeline")


def spoil_json(folder):
    (folder / "vae" / "config.json").write_text("{")


def original(folder):
    spoil_index(folder)
    (folder / "high_noise_model").mkdir()


def text_to_video(folder):
    edit(folder / "transformer" / "config.json", in_channels=8)


def older(folder):
    edit(folder / "transformer" / "config.json", image_dim=1280)


def one_expert(folder):
    edit(folder / "model_index.json", boundary_ratio=None)


def pickled(folder):
    weights = folder / "transformer_2" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


def no_tokenizer(folder):
    shutil.rmtree(folder / "tokenizer")


def shard(folder):
    name = "diffusion_pytorch_model-00002-of-00002.safetensors"
    index = {"weight_map": {"a": name.replace("00002-", "00001-"), "b": name}}
    (folder / "vae" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps(index)
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_index, "has no model_index.json"),
        (original, "has Wan's original files; expected a pipeline as diffusers lays it out"),
        (spoil_class, "holds a FluxPipeline"),
        (spoil_json, "config.json is not readable JSON"),
        (text_to_video, "a text-to-video model, which takes no first frame"),
        (older, "this is Wan 2.1"),
        (one_expert, "expected two experts and a boundary_ratio"),
        (pickled, "lacks 1 of 1 files .*diffusion_pytorch_model.bin is pickled and is not read"),
        (no_tokenizer, "has no folder tokenizer"),
        (shard, "vae lacks 2 of 2 files of weights, first diffusion_pytorch_model-00001-of-00002"),
    ],
)
def test_wrong_folder_is_told_in_a_line(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ValueError, match=message) as error:
        load(folder, OPTIONS)
    assert "\n" not in str(error.value)


def cut(path):
    path.write_bytes(path.read_bytes()[:2000])


def rename_tensor(path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors["other"] = tensors.pop("patch_embedding.weight")
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"), [(cut, "not readable as"), (rename_tensor, "do not belong together")]
)
def test_damaged_weights_are_told_in_a_line(folder, damage, message):
    damage(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    prior = load(folder, OPTIONS)
    with pytest.raises(ValueError, match=message) as error:
        prior.velocity(
            torch.zeros(1, 8, 3, 4, 8),
            0.95,
            prior.condition("a lid closes", video(count=1)[:, 0]),
            guidance=2.0,
        )
    assert "\n" not in str(error.value)


def test_wrong_calls_are_told(prior):
    with pytest.raises(ValueError, match="text: expected a sentence"):
        prior.condition("  ", video()[:, 0])
    with pytest.raises(ValueError, match="at most 512 tokens, got 601"):
        prior.condition("a " * 600, video()[:, 0])
    with pytest.raises(ValueError, match=r"first: expected shape \(B, 32, 64, 3\), got"):
        prior.condition("a", video())
    with pytest.raises(ValueError, match=r"video: expected shape \(B, 9, 32, 64, 3\), got"):
        prior.encode(video(frames=5))
    condition = prior.condition("a", video()[:, 0])
    z = prior.encode(video())
    with pytest.raises(ValueError, match="tau: expected a noise level"):
        prior.velocity(z, 0.0, condition, guidance=2.0)
    with pytest.raises(ValueError, match="got 1 latents and a condition of 2 first frames"):
        prior.velocity(z[:1], 0.5, condition, guidance=2.0)


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (A14B, {"frames": 40}, r"frames: expected 4 n \+ 1, n from 1, got 40; take 41"),
        (
            A14B,
            {"width": 830},
            "width: expected a multiple of 16 pixels for .*, got 830; take 816 or 832",
        ),
        (
            TI2V_5B,
            {"height": 464},
            "height: expected a multiple of 32 pixels for .*, got 464; take 448 or 480",
        ),
    ],
)
def test_sizes_that_a_model_cannot_make(model, change, message):
    with pytest.raises(ValueError, match=message):
        plan(model, WanOptions(**change), "videos")


def test_real_wan_is_told_what_a_laptop_lacks():
    """Real shapes, on no device at all: 28.6 GB an expert, 11.4 GB of text encoder."""
    need = plan(A14B, WanOptions(cameras=1), "videos")
    assert need.weights["transformer"] * memory.GIB / 1e9 == pytest.approx(28.6, rel=0.01)
    assert need.weights["text encoder"] * memory.GIB / 1e9 == pytest.approx(11.4, rel=0.01)
    assert 30 < need.iterating < 60
    assert free_memory("cpu") > 0
