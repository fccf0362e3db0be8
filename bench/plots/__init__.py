"""Plots of a run, drawn by the bench itself: the same results give the same bytes."""
