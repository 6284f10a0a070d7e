"""The likelihood term: against torch.distributions, and that it learns a true sigma."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily, Normal, Uniform
from torch.distributions.categorical import Categorical

from medsr.batch import Batch
from medsr.distill import Distiller, build_term
from medsr.errors import UsageError
from medsr.networks import RepPlain3D, SRNetwork
from medsr.networks.heads import BinnedReadout


def _network(head: str, seed: int = 0) -> SRNetwork:
    torch.manual_seed(seed)
    network = RepPlain3D((1, 1, 2), width=16, depth=1, head=head)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def _batch() -> Batch:
    random = torch.Generator().manual_seed(1)
    return Batch(
        torch.rand((2, 1, 5, 4, 3), generator=random), torch.rand((2, 1, 5, 4, 6), generator=random)
    )


def _value(network: SRNetwork, beta: float | None = None) -> Tensor:
    distiller = Distiller(network, None, [build_term("nll", beta=beta)])
    loss: Tensor = distiller(_batch()).losses["nll"]
    distiller.close()
    return loss


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_gaussian_equals_torch_distributions(beta: float) -> None:
    network, batch = _network("gaussian"), _batch()
    mean, sigma = network.distribution(batch.lr)
    density = Normal(mean, sigma).log_prob(batch.hr)
    expected = -(density * sigma ** (2 * beta)).mean()
    assert _value(network, beta).item() == pytest.approx(expected.item(), rel=1e-4)
    if beta == 1.0:
        assert _value(network).item() == pytest.approx(expected.item(), rel=1e-4)


def test_with_beta_one_the_mean_learns_as_from_squared_errors() -> None:
    network, batch = _network("gaussian"), _batch()
    _value(network, 1.0).backward()
    found = network.tail.weight.grad[:2].clone()  # type: ignore[union-attr,index]
    network.zero_grad()
    (0.5 * (network(batch.lr) - batch.hr).square()).mean().backward()
    torch.testing.assert_close(found, network.tail.weight.grad[:2], rtol=1e-3, atol=1e-6)


def test_bins_equal_a_mixture_of_even_densities() -> None:
    network, batch = _network("bins"), _batch()
    readout = network.readout
    assert isinstance(readout, BinnedReadout)
    seen: list[Tensor] = []
    readout.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        sr = network(batch.lr)
        parts = Uniform(readout.edges[:-1], readout.edges[1:], validate_args=False)
        mixture = MixtureSameFamily(
            Categorical(logits=seen[0].movedim(1, -1)), parts, validate_args=False
        )
        residual = batch.hr - (sr - readout.mean(seen[0]))
        assert residual.abs().max() < 1
        expected = -mixture.log_prob(residual[:, 0]).mean()
    assert _value(network).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("head", ["gaussian", "bins"])
@pytest.mark.parametrize("bf16", [False, True])
def test_it_needs_no_teacher_and_moves_the_whole_student(head: str, bf16: bool) -> None:
    network = _network(head)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        value = _value(network)
    assert value.dtype == torch.float32
    value.backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("head", ["gaussian", "bins"])
def test_sigma_becomes_the_noise_that_no_network_can_know(head: str) -> None:
    torch.manual_seed(0)
    network = RepPlain3D((1, 1, 2), width=16, depth=1, branches=False, head=head)
    distiller = Distiller(network, None, [build_term("nll")])
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    random = torch.Generator().manual_seed(3)
    lr = torch.full((4, 1, 4, 4, 4), 0.5)
    for _ in range(150):
        hr = 0.5 + 0.1 * torch.randn((4, 1, 4, 4, 8), generator=random)
        optimiser.zero_grad()
        distiller(Batch(lr, hr)).losses["nll"].backward()
        optimiser.step()
    mean, sigma = network.distribution(lr)
    assert sigma.mean().item() == pytest.approx(0.1, rel=0.1)
    assert mean.mean().item() == pytest.approx(0.5, abs=0.02)


def test_wrong_options_and_heads_are_refused() -> None:
    with pytest.raises(UsageError, match="beta is 2"):
        build_term("nll", beta=2)
    with pytest.raises(UsageError, match="gives values and no distribution"):
        Distiller(_network("value"), None, [build_term("nll")])
    with pytest.raises(UsageError, match="beta is for the head gaussian"):
        Distiller(_network("bins"), None, [build_term("nll", beta=0.5)])
