"""Figures, tables and the page; reads the store and nothing else."""

from isoloss.report.data import ReportData, collect
from isoloss.report.figures import curve_figure, series_figure
from isoloss.report.page import ReportSummary, write

__all__ = ["ReportData", "ReportSummary", "collect", "curve_figure", "series_figure", "write"]
