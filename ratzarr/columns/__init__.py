"""The columns of a table: create, read, write, resize, delete."""
