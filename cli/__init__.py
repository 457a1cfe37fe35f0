"""The `vl` command."""
