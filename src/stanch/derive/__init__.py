"""Pure functions from the registry: OpenAPI, commands, reference pages. No action is named here."""
