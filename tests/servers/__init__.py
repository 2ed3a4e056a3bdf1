"""Servers that the tests start for themselves, on the loopback interface only."""
