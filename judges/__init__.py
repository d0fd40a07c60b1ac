"""Judges of responses: one file per judge, text in, verdict out."""

from .base import Exchange, Judge, RemoteJudge

__all__ = ["Exchange", "Judge", "RemoteJudge"]
