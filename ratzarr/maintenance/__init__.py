"""Whole stores: check, repair, copy."""
