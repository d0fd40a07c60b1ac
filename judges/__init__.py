"""Judges of responses: one file per judge, text in, verdict out."""

from .base import Exchange, Judge

__all__ = ["Exchange", "Judge"]
