"""What several instances of one table do, and what may come of it.

Each module has the rules for one part of it; :mod:`tests.ratzarr.statemachine` puts them together.
"""
