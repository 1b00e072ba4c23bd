"""A page about evaluations, in one file that needs no network."""

from bsmamba2.report.page import write_report

__all__ = ["write_report"]
