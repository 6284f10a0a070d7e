"""Structured pruning: whole channels leave, and an ordinary narrower network remains.

The narrower network is built from the same table with new options; it says how many channels each
layer keeps. Which layers must lose the same channels (both ends of a residual, the parts of a
concatenation) is found by torch-pruning's dependency graph. The result is saved, loaded, run and
trained on like any other model. Not here: that training, which is an ordinary recipe with
``network.start``.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.errors import MissingExtraError, ModelError, UsageError
from medsr.model import SRModel
from medsr.networks import SRNetwork, build_network

MULTIPLE = 16
"""Widths between these multiples are no faster on a CPU, and the networks refuse them."""


def prune(
    model: SRModel,
    *,
    width: int | None = None,
    ratio: float | None = None,
    options: Mapping[str, int] | None = None,
    pairs: Sequence[tuple[Tensor, Tensor]] = (),
) -> SRModel:
    """Take the least important channels out of a network.

    Args:
        model: Trained model; it is left as it was.
        width: Channels to keep, a multiple of 16.
        ratio: Share of the channels to take out, in (0, 1), in place of ``width``; what is kept is
            rounded to the nearest multiple of 16, at least 16.
        options: Further options that set numbers of channels, for example ``{"growth": 16}``.
        pairs: Normalised ``(lr, hr)`` patches, ``(B, 1, X, Y, Z)`` and ``(B, 1, X·sx, Y·sy,
            Z·sz)``. With them a channel's importance is the first-order change of the L1 error
            when it goes (Taylor); without, the L2 norm of its weights in all layers it runs
            through.

    Returns:
        A model of the same network with the new options, named after its width. Without further
        training its quality is low.

    Raises:
        MissingExtraError: The extra ``compress`` is not installed.
        ModelError: The network has no such option, or its channels cannot be traced.
        UsageError: Neither or both of ``width`` and ``ratio``, or nothing would be taken out.

    Source: Li et al. 2017, "Pruning Filters for Efficient ConvNets" (weight norms); Molchanov et
        al. 2019, "Importance Estimation for Neural Network Pruning" (Taylor); Fang et al. 2023,
        "DepGraph: Towards Any Structural Pruning" (coupled layers).

    Examples:
        >>> from medsr import SRModel
        >>> from medsr.compress import prune
        >>> model = SRModel.load("ct-z4")
        >>> narrow = prune(model, width=16)
        >>> narrow.spec.options["width"], narrow.spec.parameters < model.spec.parameters / 2
        (16, True)
    """
    tp = _library()
    spec = model.spec
    # A copy whose layers are all plain; `merged` may return the network itself.
    source = copy.deepcopy(model.module.merged()).cpu().float().eval().requires_grad_(True)
    pruned_options = {"width": _new_width(source, width, ratio), **(options or {})}
    new_options = {**source.merged_options(spec.options), **pruned_options}
    target = build_network(spec.network, spec.scale, **new_options).merged().eval()
    if pairs:
        _gradients(source, pairs)
    importance = tp.importance.GroupTaylorImportance() if pairs else _magnitude(tp)
    try:
        _take_out(tp, source, _channels(target), importance)
        target.load_state_dict(source.state_dict(), strict=True)
    except (RuntimeError, ValueError, LookupError, AttributeError) as error:
        wanted = ", ".join(f"{name} {value}" for name, value in pruned_options.items())
        reason = str(error).strip().split("\n", 1)[0]
        raise ModelError(
            f"model {spec.name}: {spec.network} cannot be pruned to {wanted} ({reason}); "
            "train a narrower network in its place"
        ) from error
    pruned = dataclasses.replace(
        spec,
        name=f"{spec.name}-w{pruned_options['width']}",
        options=new_options,
        halo=target.halo,
        multiple_of=target.multiple_of,
        parameters=sum(p.numel() for p in target.parameters()),
        training={
            **spec.training,
            "pruned": {
                "from": spec.name,
                "weights_sha256": model.weight_hash,
                "kept": pruned_options,
                "importance": "taylor" if pairs else "l2",
            },
        },
        description=f"{spec.name} pruned to {pruned_options['width']} channels",
    )
    return SRModel(target.requires_grad_(False), pruned)


def half_width(network: SRNetwork) -> int:
    """Return the multiple of 16 nearest to half the network's width, at least 16."""
    return _rounded(_width(network) / 2)


def _library() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingExtraError(
            "pruning needs torch-pruning, which is not installed; pip install 'medsr[compress]'"
        ) from error
    return torch_pruning


def _magnitude(tp: Any) -> Any:
    return tp.importance.GroupMagnitudeImportance(p=2)


def _width(network: SRNetwork) -> int:
    width = getattr(network, "width", None)
    if not isinstance(width, int):
        raise ModelError(
            f"{type(network).__name__} states no width; only networks of one width can be pruned"
        )
    return width


def _new_width(network: SRNetwork, width: int | None, ratio: float | None) -> int:
    if (width is None) == (ratio is None):
        raise UsageError("pruning needs either width or ratio")
    old = _width(network)
    if ratio is not None and not 0 < ratio < 1:
        raise UsageError(f"ratio {ratio} must lie between 0 and 1")
    new = width if width is not None else _rounded(old * (1 - float(ratio or 0)))
    if not MULTIPLE <= new < old or new % MULTIPLE:
        raise UsageError(
            f"a width of {old} cannot be pruned to {new}; give a smaller multiple of {MULTIPLE}"
        )
    return new


def _rounded(width: float) -> int:
    return max(MULTIPLE, round(width / MULTIPLE) * MULTIPLE)


def _channels(network: nn.Module) -> dict[str, int]:
    """Output channels of every convolution by name."""
    return {n: m.out_channels for n, m in network.named_modules() if isinstance(m, nn.Conv3d)}


def _gradients(network: SRNetwork, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Leave the L1 error's gradient, summed over all pairs, in the parameters."""
    for lr, hr in pairs:
        functional.l1_loss(network(lr), hr).backward()  # type: ignore[no-untyped-call]


def _take_out(tp: Any, network: SRNetwork, kept: Mapping[str, int], importance: Any) -> None:
    """Remove the least important channels of each coupled group of layers, in place."""
    names = {module: name for name, module in network.named_modules()}
    size = (8 * s for s in network.stride)
    graph = tp.DependencyGraph().build_dependency(
        network,
        example_inputs=torch.zeros(1, network.in_channels, *size),
        # What comes before and after the residual moves voxels, not channels.
        forward_fn=lambda module, folded: module.residual(folded),
        verbose=False,
    )
    for group in graph.get_all_groups(root_module_types=[nn.Conv3d]):
        layer = group[0].dep.target.module
        surplus = layer.out_channels - kept[names[layer]]
        if surplus <= 0:
            continue
        scores = importance(group)
        if scores is None:
            raise ValueError(f"nothing tells how important the channels of {names[layer]} are")
        least = torch.argsort(scores)[:surplus].tolist()
        graph.get_pruning_group(layer, tp.prune_conv_out_channels, idxs=least).prune()
