"""Whole members, without Ray: three of them in one process, calling each other directly."""
