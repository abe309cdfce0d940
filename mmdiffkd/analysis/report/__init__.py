"""One page of HTML about a run or several: ``write_report``."""

from .report import write_report

__all__ = ['write_report']
