"""Runnable claims about speed: both sides in one run, in turn, as ratios of medians."""
