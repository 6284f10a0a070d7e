"""Loss in the frequency domain: absolute errors between the Fourier spectra of two volumes.

Loss on sub-bands that keep a place in space: :mod:`medsr.losses.wavelet`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medsr.errors import UsageError
from medsr.losses import LOSSES

FORMS = ("complex", "polar")

_SPATIAL_AXES = (-3, -2, -1)
# A frequency quieter than this share of the target's root mean square is noise: its phase says
# nothing, and the phase's gradient grows without bound.
_QUIET = 1e-2


@LOSSES.register("frequency")
class FrequencyLoss(nn.Module):
    """Mean absolute error between the orthonormal 3D spectra of two volumes.

    The mean runs over all frequencies of the full spectrum. With the orthonormal transform an
    error of white noise costs about as much here as in a voxel-wise absolute error; errors that
    are periodic or lie in one band stand out.

    Args:
        form: ``"complex"`` takes the modulus of the complex difference; ``"polar"`` the error of
            the magnitudes plus ``phase`` times that of the phases.
        phase: For ``polar``: what an error of one radian costs, in normalised intensity; from 0.
            A phase counts where both spectra are louder than 1 % of the target's root mean square.
        emphasis: Frequencies are weighted by their distance from zero to this power, in cycles per
            voxel along each axis; 0 weights all alike, more favours fine detail. From 0.

    Raises:
        UsageError: If an argument is out of its range.

    Source: polar form: Fuoli, Van Gool, Timofte, "Fourier space losses for efficient perceptual
        image super-resolution", ICCV 2021.

    Examples:
        >>> import torch
        >>> from medsr.losses import FrequencyLoss
        >>> z = torch.arange(16.0)
        >>> slow, fast = (0.1 * torch.cos(2 * torch.pi * z * k / 16) for k in (1, 8))
        >>> hr, slow, fast = (wave.expand(1, 1, 8, 8, 16) for wave in (0 * z, slow, fast))
        >>> plain, fine = FrequencyLoss(), FrequencyLoss(emphasis=1.0)
        >>> round(float(plain(slow, hr) / plain(fast, hr)), 2)
        1.0
        >>> round(float(fine(slow, hr) / fine(fast, hr)), 2)  # fine detail counts more
        0.13
    """

    def __init__(self, form: str = "complex", phase: float = 0.02, emphasis: float = 0.0) -> None:
        super().__init__()
        if form not in FORMS:
            raise UsageError(f"frequency loss: form {form!r} is none of {', '.join(FORMS)}")
        if not (phase >= 0 and emphasis >= 0):
            raise UsageError(
                f"frequency loss: phase is {phase} and emphasis {emphasis}; both must be from 0"
            )
        self.form = form
        self.phase = float(phase)
        self.emphasis = float(emphasis)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Compare the spectra.

        Args:
            sr: Restored volume, (B, C, X, Y, Z).
            hr: True volume, same shape.

        Returns:
            A float32 scalar, zero when both are equal.

        Raises:
            ValueError: If the shapes differ.
        """
        if sr.shape != hr.shape:
            raise ValueError(
                f"frequency loss: shapes differ, sr {tuple(sr.shape)} and hr {tuple(hr.shape)}"
            )
        with torch.autocast(device_type=hr.device.type, enabled=False):
            weights = self._weights(hr)
            if self.form == "complex":
                # The transform is linear: one pass over sr - hr does for both volumes.
                return _mean(_spectrum(sr.float() - hr.float()).abs(), weights)
            sr_spectrum, hr_spectrum = _spectrum(sr.float()), _spectrum(hr.float())
            loudness, target = sr_spectrum.abs(), hr_spectrum.abs()
            magnitude = _mean((loudness - target).abs(), weights)
            if self.phase == 0:
                return magnitude
            power = hr.float().square().mean(dim=_SPATIAL_AXES, keepdim=True)
            floor = _QUIET * power.sqrt()
            told = (loudness > floor) & (target > floor)
            # The angle of the quotient is the difference of the angles, the short way round.
            turned = torch.where(
                told, sr_spectrum * hr_spectrum.conj(), torch.ones_like(sr_spectrum)
            )
            return magnitude + self.phase * _mean(turned.angle().abs(), weights)

    def _weights(self, volume: Tensor) -> Tensor:
        """Weights (X, Y, Z // 2 + 1) with sum one over the half spectrum that is computed."""
        x, y, z = volume.shape[-3:]
        along = [torch.fft.fftfreq(x), torch.fft.fftfreq(y), torch.fft.rfftfreq(z)]
        grid = torch.stack(torch.meshgrid(*along, indexing="ij")).double()
        weights = grid.square().sum(dim=0).sqrt() ** self.emphasis
        if float(weights.sum()) == 0:  # one voxel has no frequency but zero
            weights = torch.ones_like(weights)
        # What is real has a symmetric spectrum: each inner column stands for its mirror image too.
        weights[..., 1 : (z + 1) // 2] *= 2
        return (weights / weights.sum()).to(volume.device, torch.float32)


def _spectrum(volume: Tensor) -> Tensor:
    spectrum: Tensor = torch.fft.rfftn(volume, dim=_SPATIAL_AXES, norm="ortho")
    return spectrum


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over frequencies, plain mean over batch and channels."""
    return (values * weights).sum(dim=_SPATIAL_AXES).mean()
