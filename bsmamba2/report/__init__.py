"""From the results of evaluations to one page that opens anywhere, without a network."""

from bsmamba2.report.page import write_report

__all__ = ["write_report"]
