"""Grids: n + 1 times, from noise to data, and clear refusals. (Against diffusers: parity/.)"""

import pytest
import torch

from minidiff.diffusion import GRIDS, cosine, edm, karras, leading, linear, linspace, scaled_linear, trailing, uniform


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_n_plus_one_falling_times_that_end_at_data(name, n):
    times = GRIDS[name](n, scaled_linear())
    assert times.shape == (n + 1,) and times.dtype == torch.float64
    assert times[-1] == 0 and (times.diff() < 0).all() and times[0] <= 1


def test_karras_spaces_the_ratio_as_its_equation_says():
    times = karras(5, edm())
    sigma = edm().sigma(times)
    expected = [(80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(5)] + [0]
    torch.testing.assert_close(sigma, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    assert float(karras(5, scaled_linear())[0]) == pytest.approx(1)  # its own largest ratio is below 80
    assert karras(5, cosine())[0] < 1


def test_the_indices_by_hand():
    ten = linear(10)
    assert (leading(5, ten) * 10 - 1).round().tolist() == [8, 6, 4, 2, 0, -1]
    assert (leading(5, ten, offset=1) * 10 - 1).round().tolist() == [9, 7, 5, 3, 1, -1]
    assert (leading(4, ten, spare=1) * 10 - 1).round().tolist() == [8, 6, 4, 2, -1]
    assert (leading(5, ten, to_first=True) * 10 - 1).round().tolist() == [8, 6, 4, 2, 0, 0]
    assert (trailing(5, ten) * 10 - 1).round().tolist() == [9, 7, 5, 3, 1, -1]
    assert (linspace(4, ten) * 10 - 1).tolist() == pytest.approx([9, 6, 3, 0, -1])
    assert (linspace(3, ten, spare=1) * 10 - 1).round().tolist() == [9, 6, 3, -1]


def test_refusals():
    for n in (0, -3):
        for make in GRIDS.values():
            with pytest.raises(ValueError, match="at least 1"):
                make(n, linear())
    with pytest.raises(ValueError, match="use uniform or karras"):
        leading(10, cosine())
    with pytest.raises(ValueError, match="no 1001 different indices"):
        trailing(1001, linear())
    for make in (leading, linspace):
        with pytest.raises(ValueError, match="no 1001 different indices"):
            make(1000, linear(), spare=1)
    with pytest.raises(ValueError, match="beyond the table"):
        leading(1000, linear(), offset=1)
    with pytest.raises(ValueError, match=r"sigma/alpha must lie in \[0, 14.6"):
        karras(10, scaled_linear(), sigma_max=80.0)
    assert uniform(2, cosine(), 0.9, 0.1).tolist() == pytest.approx([0.9, 0.5, 0.1])
