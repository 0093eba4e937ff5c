"""Figures and pages that every report shares."""
