"""The history: rows from the members, the actor that keeps and queries them, and the ways to ask it."""
