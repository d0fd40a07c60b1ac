"""Numbers and how they are shown. Knows nothing of torch; pandas and statsmodels are loaded when first used."""

from .method_result import MethodResult, Sample
from .records import Outcome, Verdict, combine
from .statistics import Rate, rate

__all__ = ["MethodResult", "Outcome", "Rate", "Sample", "Verdict", "combine", "rate"]
