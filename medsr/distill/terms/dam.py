"""Domain-aware attention: where, for this kind of scan, the student is to imitate the teacher.

With a frozen teacher the term stands alone; with :class:`medsr.networks.dam.DAM3D`, whose student
and teacher share a stem, it trains both at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill.taps import Activations, Tap
from medsr.distill.term import Term
from medsr.distill.terms import TERMS
from medsr.distill.terms._features import paired, projection, standardise
from medsr.errors import UsageError
from medsr.losses import build_loss
from medsr.networks.discriminator import PatchDiscriminator3D


class DomainAttention(nn.Module):
    """Where to imitate: an attention map from both networks' features and the scan's domain.

    ``U = relu(γ_d ⊙ φ[F_T; F_S] + β_d)`` fuses the features by a 1³ convolution φ and modulates
    them by the domain d; ``A = floor + (1 − floor) · σ(g(U)) / mean σ(g(U))``, the mean over
    the voxels of each sample. So A has mean 1 and is nowhere below ``floor``, whatever φ and g are:
    a lower loss cannot be had by looking away. What is left to learn is where to look more.

    Args:
        channels: Channels of each network's features.
        hidden: Channels of U.
        domains: Known domains; all others share one more modulation.
        floor: Smallest attention, from 0 to below 1.
    """

    def __init__(
        self, channels: int, hidden: int = 32, domains: Sequence[str] = (), floor: float = 0.25
    ) -> None:
        super().__init__()
        self.floor = floor
        self.known = {name: number for number, name in enumerate(domains, start=1)}
        self.fuse = nn.Conv3d(2 * channels, hidden, kernel_size=1)
        self.gate = nn.Conv3d(hidden, 1, kernel_size=1)
        self.modulation = nn.Embedding(len(self.known) + 1, 2 * hidden)
        nn.init.zeros_(self.modulation.weight)

    def forward(self, student: Tensor, teacher: Tensor, domains: Sequence[str] = ()) -> Tensor:
        """Return the attention map.

        Args:
            student: Features (B, C, X, Y, Z).
            teacher: Features of the same shape.
            domains: What each sample shows; unknown where empty.

        Returns:
            Float32 (B, 1, X, Y, Z), of mean 1 over each sample.
        """
        names = tuple(domains) or ("",) * len(student)
        numbers = torch.tensor([self.known.get(name, 0) for name in names], device=student.device)
        scale, shift = self.modulation(numbers)[..., None, None, None].chunk(2, dim=1)
        fused = torch.relu((1 + scale) * self.fuse(torch.cat((teacher, student), dim=1)) + shift)
        open_ = torch.sigmoid(self.gate(fused).float())
        relative = open_ / open_.mean(dim=(1, 2, 3, 4), keepdim=True)
        return self.floor + (1 - self.floor) * relative


@TERMS.register(
    "dam",
    small={
        "adversarial": 0.1,
        "hidden": 8,
        "domains": ["MR/T1w"],
        "student": "body.1",
        "teacher": "body.2",
    },
    recipe="configs/distill/dam.yaml",
)
class DAMTerm(Term):
    """Imitation of the teacher's features, weighted by attention that knows the domain.

    ``mean(A ⊙ |r(F_S) − F_T|) + λ · adversarial``, with standardised features, a 1³ convolution r
    and the attention A of :class:`DomainAttention`. A sees both features as they are, without
    gradient to the networks, so that no network can lower its loss by steering the attention;
    trained by this loss, A leans to what can be imitated, within its floor. The adversarial part
    is a discriminator of feature patches that learns to tell r(F_S) from F_T, in the least-squares
    form.

    With ``pair`` the network in training is a :class:`medsr.networks.dam.DAM3D`: both taps lie in
    it, the teacher's features are held fixed for the imitation (the teacher learns from the
    recipe's losses, which compare its answer with the truth), and the student's own loss to the
    truth joins this term.

    Args:
        student: Submodule whose features imitate; with ``pair`` for example ``"pupil.body.7"``.
        teacher: Submodule of the teacher; with ``pair`` of the same network, ``"body.9"``.
        domains: Domains that have an attention of their own, such as ``"MR/T1w"``; all others
            share one.
        floor: Smallest attention, from 0 to below 1.
        hidden: Channels of the fused features.
        adversarial: Weight λ of the adversarial part; 0 leaves it and its discriminator out.
        learning_rate: Peak learning rate of the discriminator.
        pair: Train a pair with a shared stem, without a teacher of its own.
        truth: With ``pair``, weight of the student's loss to the truth.
        loss: With ``pair``, name of that loss in :data:`medsr.losses.LOSSES`.
        **options: Arguments of that loss.

    Raises:
        UsageError: An argument is out of its range, or ``pair`` is asked of another network.

    Source: the method is known by its parts (a stem shared by teacher and student, fused features,
        attention, conditioning on the domain, adversarial training); we know of no publication
        that gives them as one formula. Taken from elsewhere: modulation, Perez et al., "FiLM",
        AAAI 2018, equation 1; attention over the imitated features, Zhang and Ma, "Improve object
        detection with feature-based knowledge distillation", ICLR 2021; feature discriminators,
        Chung et al., "Feature-map-level online adversarial knowledge distillation", ICML 2020;
        least squares, Mao et al., ICCV 2017, equation 9. This implementation's choices: the
        normalisation of A and its floor, what is held fixed, and absolute differences of
        standardised features.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Distiller
        >>> from medsr.distill.terms import DAMTerm
        >>> from medsr.networks import build_network
        >>> student = build_network("RepPlain3D", (1, 1, 4), width=16, depth=2)
        >>> teacher = build_network("ResNet3D", (1, 1, 4), width=32, blocks=2)
        >>> term = DAMTerm("body.1", "body.1", domains=("MR/T1w", "MR/FLAIR"), hidden=16)
        >>> distiller = Distiller(student, teacher, [term])
        >>> batch = Batch(torch.rand(1, 1, 8, 8, 4), torch.rand(1, 1, 8, 8, 16), ("MR/FLAIR",))
        >>> bool(distiller(batch).losses["dam"] > 0)
        True
    """

    name = "dam"

    def __init__(
        self,
        student: str,
        teacher: str,
        domains: Sequence[str] = (),
        floor: float = 0.25,
        hidden: int = 32,
        adversarial: float = 0.0,
        learning_rate: float = 2e-4,
        pair: bool = False,
        truth: float = 1.0,
        loss: str = "l1",
        **options: Any,
    ) -> None:
        super().__init__()
        if not 0 <= floor < 1:
            raise UsageError(f"dam term: floor is {floor}; it must be from 0 to below 1")
        if hidden < 1 or not learning_rate > 0:
            raise UsageError(
                f"dam term: hidden is {hidden} and learning_rate {learning_rate}; "
                "hidden must be at least 1 and learning_rate above 0"
            )
        if min(adversarial, truth) < 0:
            raise UsageError(
                f"dam term: adversarial is {adversarial} and truth {truth}; both must be from 0"
            )
        self.tap = Tap(student=student, teacher=teacher)
        self.pair = pair
        self.needs_teacher = not pair
        self.domains = tuple(domains)
        self.floor, self.hidden = float(floor), int(hidden)
        self.adversarial, self.truth = float(adversarial), float(truth)
        self.adversary_learning_rate = float(learning_rate)
        self.loss = build_loss(loss, **options)
        self.projection: nn.Conv3d | None = None
        self.attention: DomainAttention | None = None
        self._pupil: tuple[nn.Module, ...] = ()

    @property
    def needs(self) -> tuple[Tap, ...]:
        """The one pair of submodules; of a network with its own student both are the student's."""
        if not self.pair:
            return (self.tap,)
        return (Tap(self.tap.student, ""), Tap(self.tap.teacher, ""))

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Find the student within a pair.

        Raises:
            UsageError: ``pair`` is asked of a network that holds no student.
        """
        if not self.pair:
            return
        pupil = getattr(student, "pupil", None)
        if not isinstance(pupil, nn.Module):
            raise UsageError(
                f"dam term: pair needs a network that holds its student, such as DAM3D, "
                f"not {type(student).__name__}"
            )
        self._pupil = (pupil,)

    def setup(self, student: Activations, teacher: Activations) -> None:
        """Create projection, attention and discriminator for the networks' widths.

        Args:
            student: The activations of the network in training for a tiny scan.
            teacher: The teacher's; not looked at with ``pair``.
        """
        source, target = paired(student, student if self.pair else teacher, self.tap)
        if self.projection is not None:
            return
        channels = target.shape[1]
        self.projection = projection(source.shape[1], channels).to(target.device)
        attention = DomainAttention(channels, self.hidden, self.domains, self.floor)
        self.attention = attention.to(target.device)
        if self.adversarial > 0:
            critic = PatchDiscriminator3D(channels, width=32, strides=1)
            self.adversary = critic.to(target.device)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Compare the features where the attention looks.

        Args:
            student: The activations of the network in training.
            teacher: The teacher's activations; not looked at with ``pair``.
            batch: Domains; with ``pair`` also the scans and their truth.

        Returns:
            A float32 scalar; without the adversarial part and ``pair`` zero when the projected
            features equal the teacher's.

        Raises:
            RuntimeError: If :meth:`setup` was not called.
            ValueError: If one grid is not a whole multiple of the other.
        """
        if self.attention is None:
            raise RuntimeError("dam term: setup() must run before the first step")
        projected, target = self._features(student, teacher)
        attention = self.attention(projected.detach(), target, batch.domains)
        total: Tensor = (attention * (projected - target).abs()).mean()
        if self.adversary is not None:
            judged: Tensor = self.adversary(projected)
            total = total + self.adversarial * 0.5 * (judged - 1).square().mean()
        if self.pair:
            total = total + self.truth * self.loss(self._pupil[0](batch.lr), batch.hr)
        return total

    def adversary_loss(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Return how badly the discriminator tells projected features from the teacher's.

        Args:
            student: The activations of the network in training, without gradient.
            teacher: The teacher's activations; not looked at with ``pair``.
            batch: Not used.

        Returns:
            A float32 scalar from 0; ½ where it says 0 about everything.
        """
        with torch.no_grad():
            made, real = self._features(student, teacher)
        critic = cast("nn.Module", self.adversary)
        value: Tensor = 0.5 * ((critic(real) - 1).square().mean() + critic(made).square().mean())
        return value

    def _features(self, student: Activations, teacher: Activations) -> tuple[Tensor, Tensor]:
        """Return r(F_S) and F_T, standardised, in float32 and on one grid."""
        if self.projection is None:
            raise RuntimeError("dam term: setup() must run before the first step")
        source, target = paired(student, student if self.pair else teacher, self.tap)
        return self.projection(standardise(source)).float(), standardise(target)
