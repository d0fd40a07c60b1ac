"""report.html: the results of a run on one page that needs nothing but a browser."""

from .contents import Answer, Asked, JudgeNote, Report, Source
from .page import write_report

__all__ = ["Answer", "Asked", "JudgeNote", "Report", "Source", "write_report"]
