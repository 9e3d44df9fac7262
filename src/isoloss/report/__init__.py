"""Figures, tables and the page; reads the store and nothing else."""

from isoloss.report.data import ReportData, collect
from isoloss.report.figures import curve_figure, series_figure
from isoloss.report.page import ReportSummary, write
from isoloss.report.paper import PaperFigure, paper_figures, write_figures

__all__ = [
    "PaperFigure",
    "ReportData",
    "ReportSummary",
    "collect",
    "curve_figure",
    "paper_figures",
    "series_figure",
    "write",
    "write_figures",
]
