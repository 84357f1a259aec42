"""The story of `make demo`: a harmless attack in namespaces, stopped, and checked from outside the agent."""
