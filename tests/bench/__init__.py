"""The load generator: what it sends is understood, what it reports is true, what it checks is caught."""
