"""The server: orders, fleet, evidence, audit, and the ways in."""
