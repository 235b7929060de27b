"""How often intervals cover: `make coverage`."""
