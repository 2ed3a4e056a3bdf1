"""A chunk's values to bytes and back."""
