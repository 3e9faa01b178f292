"""The price of a constraint: a Lagrange multiplier that rises while the constraint is violated.

Knows nothing of environments, networks or costs; it is told one relative violation per update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pruning_env.arguments import check_choice

CONTROLLERS = ("pi", "lagrangian")


@dataclass
class Multiplier:
    r"""A multiplier λ in [0, `max_multiplier`], moved by the relative violation Δ = J / d - 1.

    J is the measured value and d its limit, so Δ is dimensionless, at least -1 for a J that is not
    negative, and -1 for an infinite limit. Step and gain therefore mean the same whatever unit J
    is measured in.

    - "lagrangian": λ ← clip(λ + lr · Δ), projected gradient ascent on the dual function. Pure
      integral control: λ goes on rising until the violation is over, and so overshoots.
    - "pi": I ← clip(I + lr · Δ), λ ← clip(I + gain · EMA(Δ)). The proportional term lets λ fall as
      soon as the violation does (Stooke, Achiam and Abbeel, "Responsive Safety in Reinforcement
      Learning by PID Lagrangian Methods", 2020; their derivative term is left out, since it
      amplifies the noise of a mean over few episodes). The integral is clipped like λ, so that it
      does not wind up at either end.

    Args:
        controller: "pi" or "lagrangian".
        multiplier_init: λ, and the integral, before the first update.
        multiplier_lr: step of the gradient, the integral gain. 0 keeps λ where it is in plain mode.
        multiplier_gain: proportional gain; unused by "lagrangian".
        multiplier_smoothing: weight of the past in the moving average of Δ, in [0, 1); unused by
            "lagrangian".
        max_multiplier: cap of λ, above 0. λ at its cap has no power left to enforce the constraint.

    Attributes:
        value: λ.
        integral: I; equals `value` in plain mode.
        smoothed: the moving average of Δ, None before the first update.
        saturated: how many of the latest updates in a row were violations that left λ at its cap.
        updates: updates so far.

    Raises:
        ValueError: naming the argument that is out of range.
    """

    controller: str = "pi"
    multiplier_init: float = 0.0
    multiplier_lr: float = 0.2
    multiplier_gain: float = 2.0
    multiplier_smoothing: float = 0.5
    max_multiplier: float = 100.0
    value: float = field(init=False)
    integral: float = field(init=False)
    smoothed: float | None = field(init=False, default=None)
    saturated: int = field(init=False, default=0)
    updates: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        """Check the arguments and start at `multiplier_init`."""
        check_choice("controller", self.controller, CONTROLLERS)
        for name, number, high in (
            ("multiplier_lr", self.multiplier_lr, math.inf),
            ("multiplier_gain", self.multiplier_gain, math.inf),
            ("multiplier_smoothing", self.multiplier_smoothing, 1.0),
        ):
            if not 0.0 <= number < high:
                raise ValueError(f"{name}={number} is not allowed; give a number in [0, {high:g})")
        if not 0.0 < self.max_multiplier < math.inf:
            raise ValueError(
                f"max_multiplier={self.max_multiplier} is not allowed; give a finite number above 0"
            )
        if not 0.0 <= self.multiplier_init <= self.max_multiplier:
            raise ValueError(
                f"multiplier_init={self.multiplier_init} is not allowed; "
                f"give a number in [0, {self.max_multiplier:g}]"
            )
        self.value = self.integral = float(self.multiplier_init)

    def update(self, violation: float) -> float:
        """Move λ by one relative violation Δ, a finite number, and return it."""
        if not math.isfinite(violation):
            raise ValueError(f"violation={violation} is not allowed; give a finite number")
        self.integral = self._clip(self.integral + self.multiplier_lr * violation)
        if self.controller == "pi":
            past = violation if self.smoothed is None else self.smoothed
            self.smoothed = (
                self.multiplier_smoothing * past + (1.0 - self.multiplier_smoothing) * violation
            )
            self.value = self._clip(self.integral + self.multiplier_gain * self.smoothed)
        else:
            self.value = self.integral
        at_cap = self.value == self.max_multiplier and violation > 0.0
        self.saturated = self.saturated + 1 if at_cap else 0
        self.updates += 1
        return self.value

    def _clip(self, value: float) -> float:
        return min(max(value, 0.0), self.max_multiplier)
