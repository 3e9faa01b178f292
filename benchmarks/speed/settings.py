"""What a speed measurement is asked for, and what it yields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.networks import Network
from benchmarks.speed.rows import QUESTIONS


@dataclass(frozen=True)
class SpeedSettings:
    """What to measure.

    Attributes:
        questions: some of `rows.QUESTIONS`.
        device: a torch device.
        rounds: timed rounds.
        seed: of masks, actions and pixels.
        recovery_images: calibration images.
        threads: of torch.
        smoke: tiny sizes, to try the program.
        out: file of rows; table and figure go beside it.
    """

    questions: tuple[str, ...] = QUESTIONS
    device: str = "cpu"
    rounds: int = 9
    seed: int = 0
    recovery_images: int = 512
    threads: int = 1
    smoke: bool = False
    out: Path = Path("benchmarks/results/speed.jsonl")

    def images(self, network: Network) -> int:
        """Search-val images for a network."""
        return min(network.images, 8) if self.smoke else network.images

    @property
    def calibration(self) -> int:
        """Calibration images."""
        return 8 if self.smoke else self.recovery_images

    @property
    def turns(self) -> int:
        """Timed rounds."""
        return 1 if self.smoke else self.rounds


@dataclass(frozen=True)
class Figures:
    """What a measurement yields; see `SpeedRow`."""

    images: int
    recovery_images: int
    seconds: dict[str, float]
    ratios: dict[str, float]
    notes: str = ""
