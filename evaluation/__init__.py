"""Figures of merit, tables and pictures."""
