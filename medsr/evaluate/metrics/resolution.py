"""Fourier shell correlation with the truth, and the resolution it implies along each axis.

Only frequencies near an axis count for that axis (a cone around it), so that a scan with thick
slices shows a coarse z beside a fine x and y. What FSC cannot see, blur without loss, is measured
in ``edges``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, signal

from medsr.evaluate.metrics.box import WORKERS
from medsr.types import Float32Array

Curve = npt.NDArray[np.float64]

CONE_DEGREES = 20.0
"""Half angle of the cones (Tan et al. 2017)."""

THRESHOLD = 0.5
"""Correlation with a truth below which detail no longer counts as resolved.

The truth is the reference here, not a second noisy half: Rosenthal and Henderson 2003 show
that a correlation of 0.143 between half data sets is one of 0.5 with the truth.
"""

TAPER = 0.5
"""Share of each axis over which the window falls to zero (Tukey)."""

LEAST_VOXELS = 16
"""Along an axis, below which no resolution is told."""

LEAST_SAMPLES = 8
"""Of the spectrum, below which a shell is passed over."""


@dataclass(frozen=True)
class _Cone:
    """The samples of the spectrum near one axis."""

    where: npt.NDArray[np.int64]
    """Places in the flattened half spectrum."""
    shell: npt.NDArray[np.int64]
    weight: Curve
    """2 where the missing half of the spectrum holds the conjugate, else 1."""
    frequency: Curve
    """Of every shell, cycles/mm."""
    samples: Curve
    """Weights in every shell."""
    truth: npt.NDArray[np.complex64]
    power: Curve
    """Of the truth in every shell."""


class ShellCorrelation:
    """Fourier shell correlation of many results with one truth.

    Both are taken minus their mean and multiplied by the same window, which falls to zero at the
    ends of the box. Frequencies are physical (cycles/mm), so shells are spheres in patient space
    whatever the spacing; a shell is as wide as one step of the spectrum along the axis. The cone
    around an axis holds what lies within 20 degrees of it.

    Source: Harauz and van Heel 1986 (FSC); Diebolder et al. 2015 (cones).

    Args:
        hr: (X, Y, Z) truth in a box around the body, float32.
        spacing_mm: Voxel size along each axis.
        within: (X, Y, Z) further weights from 0 to 1, for example of a field of view; None for 1.
    """

    def __init__(
        self,
        hr: Float32Array,
        spacing_mm: tuple[float, float, float],
        within: Float32Array | None = None,
    ) -> None:
        self._spacing = spacing_mm
        self._shape = hr.shape
        # The half axis must come last, and a fast length needs no care about its parity.
        self._padded = tuple(fft.next_fast_len(size, real=True) for size in hr.shape)
        window = np.float32(1.0) if within is None else within
        for axis, size in enumerate(hr.shape):
            taper = signal.windows.tukey(size, TAPER).astype(np.float32)
            window = window * taper.reshape([-1 if i == axis else 1 for i in range(3)])
        self._window: Float32Array = np.asarray(window, dtype=np.float32)
        self._total = float(self._window.sum(dtype=np.float64))
        spectrum = self._transform(hr)
        radius, parts = self._frequencies()
        self._cones = [self._cone(axis, radius, parts[axis], spectrum) for axis in range(3)]

    def resolution_mm(self, sr: Float32Array) -> tuple[float, float, float]:
        """The resolution along X, Y and Z, as half a period: it reads like a voxel size.

        Args:
            sr: (X, Y, Z) result in the truth's box.

        Returns:
            ``1 / (2 f)`` for the frequency ``f`` at which the correlation first falls below 0.5,
            and the voxel size where it never does: the grid shows nothing finer (Nyquist). NaN
            along axes of fewer than 16 voxels.
        """
        x, y, z = (
            self._crossing(axis, frequency, correlation)
            for axis, (frequency, correlation) in enumerate(self.curves(sr))
        )
        return x, y, z

    def curves(self, sr: Float32Array) -> list[tuple[Curve, Curve]]:
        """The correlation over frequency near each axis.

        Args:
            sr: (X, Y, Z) result in the truth's box.

        Returns:
            For X, Y, Z: frequencies in cycles/mm and the correlation there, smoothed over three
            shells by 1, 2, 1 times their samples; empty along axes of fewer than 16 voxels.
        """
        spectrum = self._transform(sr)
        resolutions = []
        for cone in self._cones:
            if not cone.where.size:
                resolutions.append((np.zeros(0), np.zeros(0)))
                continue
            mine = spectrum[cone.where]
            count = cone.frequency.size
            cross = np.bincount(
                cone.shell, cone.weight * (mine * cone.truth.conj()).real, minlength=count
            )
            power = np.bincount(cone.shell, cone.weight * np.abs(mine) ** 2, minlength=count)
            both = np.sqrt(power * cone.power)
            raw = np.divide(cross, both, out=np.zeros_like(cross), where=both > 0)
            enough = cone.samples >= LEAST_SAMPLES
            samples = cone.samples[enough]
            smooth = _smooth(raw[enough] * samples) / _smooth(samples)
            resolutions.append((cone.frequency[enough], smooth))
        return resolutions

    def _crossing(self, axis: int, frequency: Curve, correlation: Curve) -> float:
        if not frequency.size:
            return float("nan")
        spacing = self._spacing[axis]
        (below,) = np.nonzero(correlation < THRESHOLD)
        if not below.size:
            return spacing
        last = int(below[0])
        at = float(frequency[last])
        if last:
            before, after = float(correlation[last - 1]), float(correlation[last])
            share = (before - THRESHOLD) / (before - after)
            at = float(frequency[last - 1]) + share * (at - float(frequency[last - 1]))
        return max(1 / (2 * at), spacing)

    def _transform(self, volume: Float32Array) -> npt.NDArray[np.complex64]:
        mean = float((volume * self._window).sum(dtype=np.float64)) / max(self._total, 1e-9)
        tapered = (volume - np.float32(mean)) * self._window
        spectrum: npt.NDArray[np.complex64] = fft.rfftn(tapered, s=self._padded, workers=WORKERS)
        return spectrum.ravel()

    def _frequencies(self) -> tuple[Float32Array, list[Float32Array]]:
        """The length of every frequency vector, and its parts along the axes, cycles/mm."""
        parts: list[Float32Array] = []
        for axis, (size, spacing) in enumerate(zip(self._padded, self._spacing, strict=True)):
            make = fft.rfftfreq if axis == 2 else fft.fftfreq
            part = np.abs(make(size, spacing)).astype(np.float32)
            parts.append(part.reshape([-1 if i == axis else 1 for i in range(3)]))
        return np.sqrt(parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2), parts

    def _cone(
        self,
        axis: int,
        radius: Float32Array,
        along: Float32Array,
        spectrum: npt.NDArray[np.complex64],
    ) -> _Cone:
        if self._shape[axis] < LEAST_VOXELS:
            nothing = np.zeros(0)
            none = np.zeros(0, dtype=np.int64)
            return _Cone(none, none, nothing, nothing, nothing, spectrum[:0], nothing)
        spacing = self._spacing[axis]
        step = 1 / (self._shape[axis] * spacing)
        shells = int(np.floor(1 / (2 * spacing) / step + 1e-6))
        inside = (along >= np.cos(np.radians(CONE_DEGREES)) * radius) & (radius > step / 2)
        inside &= radius < (shells + 0.5) * step
        (where,) = np.nonzero(inside.ravel())
        distance = radius.ravel()[where].astype(np.float64)
        shell = np.minimum(np.rint(distance / step).astype(np.int64), shells) - 1
        half = self._padded[2]
        column = where % (half // 2 + 1)
        own = (column == 0) | ((half % 2 == 0) & (column == half // 2))
        weight = np.where(own, 1.0, 2.0)
        truth = spectrum[where]
        samples = np.bincount(shell, weight, minlength=shells).astype(np.float64)
        mean = np.bincount(shell, weight * distance, minlength=shells)
        return _Cone(
            where=where,
            shell=shell,
            weight=weight,
            frequency=np.divide(mean, samples, out=np.zeros(shells), where=samples > 0),
            samples=samples,
            truth=truth,
            power=np.bincount(shell, weight * np.abs(truth) ** 2, minlength=shells).astype(
                np.float64
            ),
        )


def _smooth(values: Curve) -> Curve:
    """Sums over three neighbours by 1, 2, 1; at the ends over those that are there."""
    padded = np.concatenate([[0.0], values, [0.0]])
    return np.asarray(padded[:-2] + 2 * padded[1:-1] + padded[2:])
