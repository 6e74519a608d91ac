"""The VAE by itself, and its training. (Against diffusers: parity/.)"""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from minidiff import data
from minidiff.formats.vae import load_vae, save_vae
from minidiff.networks import VAE, Posterior, SpaceToDepth, VAEConfig
from minidiff.networks.tiling import in_tiles
from minidiff.training import TrainConfig
from minidiff.training.recipes.vae import kl, latent_std, psnr, train_vae, vae_loss

TINY = VAEConfig(channels=(8, 16), layers=1, latent_channels=3, groups=4, scaling=0.5)
CPU = torch.device("cpu")


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return VAE(TINY).eval().requires_grad_(False)


@pytest.fixture
def pictures():
    return torch.rand(3, 3, 12, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def digits(batch=8):
    return (b.images for b in data.color_digit_batches(batch))


def test_the_defaults_are_stable_diffusion():
    with torch.device("meta"):
        net = VAE()
    assert len(net.state_dict()) == 248
    assert sum(p.numel() for p in net.parameters()) == 83_653_863
    assert net.factor == 8 and net.config.scaling == 0.18215


@pytest.mark.parametrize("config", [TINY, replace(TINY, channels=(8,)), replace(TINY, in_channels=1)])
def test_shapes(config):
    vae, f = VAE(config), config.factor
    x = torch.randn(2, config.in_channels, 3 * f, 5 * f)
    z = vae.encode(x)
    assert z.shape == (2, 3, 3, 5)
    assert vae.decode(z).shape == x.shape
    assert vae.factor == f


def test_it_is_used_as_space_to_depth_is(vae, pictures):
    for latent in (vae, SpaceToDepth(2)):
        assert latent.decode(latent.encode(pictures)).shape == pictures.shape
        assert latent.factor == 2


def test_sides_that_do_not_fit(vae):
    with pytest.raises(ValueError, match="multiples of 2, got 13x16: 12x16 or 14x16 would do"):
        vae.encode(torch.zeros(1, 3, 13, 16))
    with pytest.raises(ValueError, match="multiples of 2, got 1x3: 2x2 or 2x4 would do"):
        vae.posterior(torch.zeros(1, 3, 1, 3))


def test_configs_that_do_not_fit():
    with pytest.raises(ValueError, match="10 channels cannot be split into 4 groups"):
        VAEConfig(channels=(8, 10), groups=4)
    with pytest.raises(ValueError, match="scaling must be above 0"):
        replace(TINY, scaling=0)


def test_samples_have_the_posteriors_mean_and_std():
    mean, log_variance = torch.tensor([0.3, -2.0, 0.0]), torch.tensor([0.0, -3.0, 1.5])
    posterior = Posterior(mean, log_variance)
    noise = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0))
    z = posterior.sample(noise)
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(z.std(0), posterior.std, rtol=0.01, atol=0)
    torch.testing.assert_close(posterior.std**2, log_variance.exp())


def test_kl_is_that_of_torch_and_never_below_0():
    posterior = Posterior(torch.randn(50, 4).double(), 2 * torch.randn(50, 4).double())
    expected = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0.0, 1.0))
    torch.testing.assert_close(kl(posterior), expected)
    assert (kl(posterior) > 0).all()
    assert kl(Posterior(torch.zeros(2), torch.zeros(2))).tolist() == [0, 0]


def test_training_on_kl_alone_makes_the_latents_noise(pictures):
    torch.manual_seed(0)
    vae = VAE(TINY)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
    before = kl(vae.posterior(pictures)).mean()
    for _ in range(30):
        value = vae_loss(vae, pictures, torch.zeros(3, 3, 6, 8), kl_weight=1000.0)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    posterior = vae.posterior(pictures)
    assert kl(posterior).mean() < 0.1 * before
    assert (posterior.std - 1).abs().mean() < 0.1 and posterior.mean.abs().mean() < 0.1


def test_the_loss_is_its_parts(vae, pictures):
    noise = torch.randn(3, 3, 6, 8)
    posterior = vae.posterior(pictures)
    decoded = vae.decode(vae.encode(pictures, noise))
    expected = (decoded - pictures).abs().mean() + 0.1 * kl(posterior).mean() + 7
    torch.testing.assert_close(vae_loss(vae, pictures, noise, 0.1, lambda *both: torch.tensor(7.0)), expected)
    seen = []
    vae_loss(vae, pictures, noise, 0.1, lambda *both: seen.extend(both) or 0)
    torch.testing.assert_close(seen, [decoded, pictures])


def test_scaling_is_applied_once_each_way(vae, pictures):
    posterior, noise = vae.posterior(pictures), torch.randn(3, 3, 6, 8)
    torch.testing.assert_close(vae.encode(pictures), 0.5 * posterior.mean)
    torch.testing.assert_close(vae.encode(pictures, noise), 0.5 * (posterior.mean + posterior.std * noise))
    other = VAE(replace(TINY, scaling=2.0))
    other.load_state_dict(vae.state_dict())
    torch.testing.assert_close(other.decode(other.encode(pictures, noise)), vae.decode(vae.encode(pictures, noise)))
    torch.testing.assert_close(other.encode(pictures), 4 * vae.encode(pictures))


def test_all_randomness_is_given(vae, pictures):
    noise = torch.randn(3, 3, 6, 8)
    one, same = (vae.decode(vae.encode(pictures, noise)) for _ in range(2))
    assert torch.equal(one, same)
    assert torch.equal(vae.encode(pictures), vae.encode(pictures))
    assert not torch.allclose(vae.encode(pictures, -noise), vae.encode(pictures, noise), atol=1e-2)


def test_every_parameter_learns(pictures):
    vae = VAE(TINY)
    vae_loss(vae, pictures, torch.randn(3, 3, 6, 8), 1.0).backward()
    assert [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_half_precision_weights_take_float_inputs(pictures):
    vae = VAE(TINY).bfloat16()
    z = vae.encode(pictures)
    assert z.dtype == vae.decode(z.float()).dtype == torch.bfloat16


def test_a_latent_looks_right_and_down(vae):
    """Padding on one side: without attention and norms, a latent would see one pixel less on the left than right."""
    down = vae.encoder.down_blocks[0].downsamplers[0]
    reached = []
    for k in range(8):
        x = torch.zeros(1, 8, 8, 8)
        x[..., 4, k] = 1
        if (down(x) - down(torch.zeros_like(x)))[0, :, 2, 1].any():
            reached.append(k)
    assert reached == [2, 3, 4]  # latent 1 of a row: its own pixels 2 and 3, and the next


# Large pictures --------------------------------------------------------------------------


def test_slices_are_the_whole(vae, pictures):
    noise = torch.randn(3, 3, 6, 8)
    z = vae.encode(pictures, noise)
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(vae.encode(pictures, noise, sliced=True), z, **close)
    torch.testing.assert_close(vae.encode(pictures, sliced=True), vae.encode(pictures), **close)
    torch.testing.assert_close(vae.decode(z, sliced=True), vae.decode(z), **close)


def test_slices_are_worked_on_one_at_a_time(vae, pictures):
    sizes = []
    vae.encoder.register_forward_hook(lambda net, given, got: sizes.append(len(got)))
    vae.decoder.register_forward_hook(lambda net, given, got: sizes.append(len(got)))
    vae.decode(vae.encode(pictures, sliced=True), sliced=True)
    assert sizes == [1] * 6


@pytest.mark.parametrize("height, width", [(32, 32), (20, 50), (6, 100), (34, 18)])
def test_tiles_of_what_looks_at_one_pixel_are_the_whole(height, width):
    """Then nothing is lost at a seam: tiles cover all, lie where they should, and weights sum to 1."""
    x = torch.randn(2, 3, height, width)
    enter = in_tiles(lambda p: p[..., ::2, ::2] ** 2, x, 16, 2, enter=2, leave=1)
    torch.testing.assert_close(enter, x[..., ::2, ::2] ** 2)
    leave = in_tiles(lambda p: p.repeat_interleave(2, 2).repeat_interleave(2, 3), x, 16, 2, enter=1, leave=2)
    torch.testing.assert_close(leave, x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_one_tile_fades_into_the_next_along_a_line():
    places = iter(range(10))
    out = in_tiles(lambda p: torch.full_like(p, next(places)), torch.zeros(1, 1, 8, 14), 8, 1, enter=1, leave=1)
    torch.testing.assert_close(out[0, 0, 3], torch.tensor([0.0] * 6 + [0.25, 0.75] + [1.0] * 6))


def test_tiles_are_small(vae):
    sizes = []
    vae.encoder.register_forward_hook(lambda net, given, got: sizes.append(tuple(given[0].shape[2:])))
    vae.decoder.register_forward_hook(lambda net, given, got: sizes.append(tuple(given[0].shape[2:])))
    x = torch.randn(1, 3, 40, 64)
    z = vae.encode(x, tile=16)
    assert z.shape == (1, 3, 20, 32) and vae.decode(z, tile=16).shape == x.shape
    assert set(sizes) == {(16, 16), (8, 8)}


def test_how_far_tiles_are_from_the_whole(vae):
    """Norms and attention of a tile see the tile alone: the larger it is, the smaller the difference."""
    x = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(2)) * 2 - 1
    z = vae.encode(x)
    whole = vae.decode(z)
    small, large, all_of_it = ((vae.decode(z, tile=tile) - whole).std() / whole.std() for tile in (32, 64, 128))
    assert 0 < large < small < 0.9  # of a random network, whose norms are far from those of the whole
    assert all_of_it < 1e-5


# Training --------------------------------------------------------------------------------


def test_it_learns_and_is_written_with_its_scaling(tmp_path):
    config = TrainConfig(steps=120, lr=5e-3, warmup=5, save_every=1000, ema=0.9)
    losses = [loss for _, _, loss in train_vae(tmp_path, CPU, digits(), config, TINY)]
    assert len(losses) == 120 and sum(losses[-5:]) < 0.7 * sum(losses[:5])
    vae = load_vae(tmp_path)
    shown = data.color_digits(64, "validation").images
    z = vae.encode(shown, torch.randn(64, 3, 16, 16))
    assert 0.8 < z.std() < 1.25
    flat = shown.mean((0, 2, 3), keepdim=True)  # the best picture for somebody who has seen nothing
    assert psnr(vae, shown).mean() > 10 * (4 / (shown - flat).square().mean((1, 2, 3))).log10().mean() + 2


def test_a_stopped_run_is_gone_on_with(tmp_path):
    config = TrainConfig(steps=6, warmup=2, save_every=1000)
    whole = list(train_vae(tmp_path / "whole", CPU, digits(), config, TINY))
    run = train_vae(tmp_path / "parts", CPU, digits(), config, TINY)
    first = list(islice(run, 3))
    run.close()
    assert first + list(train_vae(tmp_path / "parts", CPU, digits(), config, TINY)) == whole
    one, other = ((tmp_path / name / "diffusion_pytorch_model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert one == other


def test_the_spread_is_that_of_samples(vae, pictures):
    noise = torch.randn(2000, 3, 3, 6, 8)
    z = vae.posterior(pictures).sample(noise)
    assert latent_std(vae, pictures.split(1)) == pytest.approx(z.std().item(), rel=0.01)
    with pytest.raises(ValueError, match="none was given"):
        latent_std(vae, [])


def test_psnr_is_of_each_picture(vae, pictures):
    back = vae.decode(vae.encode(pictures)).clamp(-1, 1)
    expected = 10 * torch.log10(4 / (back - pictures).square().mean((1, 2, 3)))
    torch.testing.assert_close(psnr(vae, pictures, batch=2), expected)


def test_what_is_saved_is_loaded(vae, pictures, tmp_path):
    save_vae(vae, tmp_path)
    again = load_vae(tmp_path)
    assert again.config == vae.config
    torch.testing.assert_close(again.encode(pictures), vae.encode(pictures), rtol=0, atol=1e-2)
