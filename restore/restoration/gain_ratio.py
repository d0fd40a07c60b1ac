"""How far the quadratic model of a loss can be trusted: the rule by which gains decide the next update's length."""

from dataclasses import dataclass

__all__ = ["GainRatio"]

LEAST = 1e-3
"""An update gains where the loss falls by more than this share of the predicted fall."""
LOOSEST = 0.1
"""The tightness falls at most to this share from one update to the next."""


@dataclass
class GainRatio:
    """Levenberg-Marquardt damping by the gain ratio (Nielsen 1999), as a multiple of the estimate's own damping.

    With rho the actual over the predicted fall: after an update with gain the tightness is multiplied by
    max(0.1, 1 - (2 rho - 1)^3), which loosens it where the model was right and tightens it where it was wrong by more
    than half; after one without it is doubled, then multiplied by 4, 8, ...
    """

    tightness: float = 1.0
    _growth: float = 2.0

    def gained(self, actual: float, predicted: float) -> bool:
        """Whether an update gained; adapts the tightness to it.

        Args:
            actual: what the loss fell by, in nats per token; -inf where it is not finite.
            predicted: what the quadratic model said.
        """
        ratio = actual / predicted if predicted > 0 else float("-inf")
        if ratio > LEAST:
            self.tightness *= max(LOOSEST, 1 - (2 * min(ratio, 1.0) - 1) ** 3)
            self._growth = 2.0
            return True
        self.tightness *= self._growth
        self._growth *= 2
        return False
