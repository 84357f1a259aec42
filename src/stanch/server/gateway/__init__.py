"""The one port of the agents: mutual TLS, links, evidence parts, enrolment."""
