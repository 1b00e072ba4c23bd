"""PrimeKnet: speech enhancement by masks on compressed magnitudes and phases of their own (arXiv:2502.19906).

Its time stages are those of PrimeKnet-Mamba (Mamba-1) or of PrimeK-Net (kernels of prime lengths). Inside it, features
have the channels before the frames and the frequency bins: (b, d, t, f).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.contract import Network
from bsmamba2.model.prime_stages import TwoStageBlock
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import Recurrence, choose_scan
from bsmamba2.model.stft import istft, stft

# The power that compresses magnitudes.
MAGNITUDE_POWER = 0.3
# Added to squared magnitudes.
POWER_FLOOR = 1e-10
# Phases so close to -pi count as pi: one or the other is often a matter of rounding.
PHASE_MARGIN = 1e-4
# Least energy of a mixture that is scaled to an RMS of 1.
ENERGY_FLOOR = 1e-12


class PrimeKnet(Network):
    """Separates one stem from mono audio; each channel is an item of its own.

    Norms and means look at a whole mixture, so audio is best separated in segments as long as those in training.
    Parameter names are those of PrimeKnet-Mamba; `bsmamba2.weights.primek_net` has those of PrimeK-Net.

    Args:
        config: Architecture of kind primeknet.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.scan: Scan = "auto"
        self.dense_encoder = DenseEncoder(config)
        self.sequence_block = nn.ModuleList(TwoStageBlock(config) for _ in range(config.num_tsblock))
        self.mask_decoder = MaskDecoder(config)
        self.phase_decoder = PhaseDecoder(config)

    @property
    def recurrences(self) -> frozenset[Recurrence]:
        """What its time stages compute by scans."""
        return frozenset(["selective"] if self.config.time_stage == "mamba" else [])

    @property
    def mask_modules(self) -> Sequence[nn.Module]:
        """The decoder of the mask."""
        return (self.mask_decoder,)

    @property
    def opposed_modules(self) -> Mapping[str, tuple[Iterable[nn.Module], Iterable[nn.Module]]]:
        """Stages over time and over frequency."""
        stages = [[block.get_submodule(name) for block in self.sequence_block] for name in ("time_stage", "freq_stage")]
        return {"time_to_frequency": (stages[0], stages[1])}

    def set_scan(self, scan: Scan) -> None:
        """Sets which scan of `bsmamba2.model.scans` the time stages run; auto, the default, is the best for the device.

        Raises:
            InputError: The time stages run no scan.
        """
        self.check_scan(scan)
        self.scan = scan

    def compile(self, *_: Any, **options: Any) -> None:
        """Compiles the two-stage blocks, as `Network.compile` describes."""
        for block in self.sequence_block:
            block.compile(**({"dynamic": False} | options))

    def estimates(self, mixture: Tensor, recompute: bool) -> Tensor:
        """Returns what `forward` does, for a mixture that it has checked."""
        mixture = mixture.to(torch.promote_types(mixture.dtype, torch.float32))
        energy = mixture.square().sum(-1, keepdim=True)
        scale = (mixture.shape[-1] / energy.clamp(min=ENERGY_FLOOR)).sqrt()
        spectrum = self._spectrum(scale[:, 0] * mixture[:, 0])
        estimate = istft(self.masked(spectrum, recompute), length=mixture.shape[-1], **self.transform)
        return (estimate[:, None] / scale)[:, None]

    def masked(self, spectrum: Tensor, recompute: bool = False) -> Tensor:
        """Returns the spectrum (b, f, t) of the stem in that of a mixture (b, f, t) with an RMS of 1."""
        magnitude, phase = compressed(spectrum)
        x = self.dense_encoder(torch.stack([magnitude, phase], dim=1).mT)
        # Chosen here, outside of what torch.compile traces.
        scan = choose_scan(x.device, self.scan, x.dtype, "selective") if self.recurrences else self.scan
        for block in self.sequence_block:
            x = checkpoint(block, x, scan, use_reentrant=False) if recompute else block(x, scan)
        mask, estimated_phase = self.mask_decoder(x), self.phase_decoder(x)
        return torch.polar((mask.mT * magnitude) ** (1 / MAGNITUDE_POWER), estimated_phase.mT)

    def _spectrum(self, mixture: Tensor) -> Tensor:
        """Returns the spectrum (b, f, t) of a mixture (b, n), real where the reflected ends make a frame symmetric.

        What rounding leaves there of the imaginary part would decide between the phases pi and -pi.
        """
        spectrum = stft(mixture, **self.transform)
        last, beyond = divmod(max(mixture.shape[-1], self.config.n_fft // 2 + 1) - 1, self.config.hop_length)
        imaginary = spectrum.imag.clone()
        imaginary[..., [0] if beyond else [0, last]] = 0
        return torch.complex(spectrum.real, imaginary)


class DenseEncoder(nn.Module):
    """From magnitudes and phases to features at half the bins.

    Args:
        config: Uses dense_channel and dense_depth.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.dense_channel
        self.dense_conv_1 = nn.Sequential(nn.Conv2d(2, channels, 1), *normalised(channels))
        self.dense_block = DenseBlock(config)
        self.dense_conv_2 = nn.Sequential(nn.Conv2d(channels, channels, (1, 3), stride=(1, 2)), *normalised(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Returns features (b, d, t, f // 2) of magnitudes and phases (b, 2, t, f)."""
        return self.dense_conv_2(self.dense_block(self.dense_conv_1(x)))


class DenseBlock(nn.Module):
    """Convolutions that each take the outputs of all before, further and further apart in time.

    Args:
        config: Uses dense_channel and dense_depth.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.dense_channel
        self.dense_block = nn.ModuleList()
        for place in range(config.dense_depth):
            inputs, dilation = channels * (place + 1), (2**place, 1)
            convolution = nn.Conv2d(inputs, inputs, 3, dilation=dilation, padding=dilation, groups=inputs)
            self.dense_block.append(nn.Sequential(convolution, nn.Conv2d(inputs, channels, 1), *normalised(channels)))

    def forward(self, x: Tensor) -> Tensor:
        """Returns features (b, d, t, f) of features (b, d, t, f)."""
        newest_first = x
        for layer in self.dense_block:
            x = layer(newest_first)
            newest_first = torch.cat([x, newest_first], dim=1)
        return x


class MaskDecoder(nn.Module):
    """From features to a mask, with a learned steepness for each bin.

    Args:
        config: Uses dense_channel, dense_depth, n_fft and sigmoid_beta.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.dense_channel
        self.dense_block = DenseBlock(config)
        self.mask_conv = nn.Sequential(
            widening(channels),
            nn.Conv2d(channels, 1, 1),
            *normalised(1),
            nn.Conv2d(1, 1, 1),
        )
        self.lsigmoid = SteepSigmoid(config.n_fft // 2 + 1, config.sigmoid_beta)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the mask (b, t, f) of features (b, d, t, f // 2)."""
        return self.lsigmoid(self.mask_conv(self.dense_block(x))[:, 0])


class SteepSigmoid(nn.Module):
    """A sigmoid with a learned steepness for each bin.

    Args:
        bins: Their number.
        largest: What it tends to.
    """

    def __init__(self, bins: int, largest: float) -> None:
        super().__init__()
        self.largest = largest
        self.slope = nn.Parameter(torch.ones(bins, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Returns values (b, t, f) from 0 to the largest, of x (b, t, f), in at least single precision."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return self.largest * torch.sigmoid(self.slope[:, 0] * x)


class PhaseDecoder(nn.Module):
    """From features to phases.

    Args:
        config: Uses dense_channel and dense_depth.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.dense_channel
        self.dense_block = DenseBlock(config)
        self.phase_conv = nn.Sequential(widening(channels), *normalised(channels))
        self.phase_conv_r, self.phase_conv_i = nn.Conv2d(channels, 1, 1), nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns phases (b, t, f) in at least single precision, of features (b, d, t, f // 2)."""
        x = self.phase_conv(self.dense_block(x))
        real, imaginary = self.phase_conv_r(x)[:, 0], self.phase_conv_i(x)[:, 0]
        dtype = torch.promote_types(x.dtype, torch.float32)
        return torch.atan2(imaginary.to(dtype), real.to(dtype))


def compressed(spectrum: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the compressed magnitudes of a complex spectrum and its phases in radians, both in its shape."""
    magnitude = (spectrum.real.square() + spectrum.imag.square() + POWER_FLOOR) ** (MAGNITUDE_POWER / 2)
    phase = spectrum.angle()
    return magnitude, torch.where(phase < PHASE_MARGIN - math.pi, phase + 2 * math.pi, phase)


def normalised(channels: int) -> tuple[nn.Module, nn.Module]:
    """Returns what follows a convolution: a norm over frames and bins of each channel, and the nonlinearity."""
    return nn.InstanceNorm2d(channels, affine=True), nn.PReLU(channels)


def widening(channels: int) -> nn.ConvTranspose2d:
    """Returns the convolution from half the bins to all."""
    return nn.ConvTranspose2d(channels, channels, (1, 3), stride=(1, 2))
