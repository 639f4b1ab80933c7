"""Watches: the guarantees as functions, the hub under random schedules, real clients."""
