"""The command `stanch`."""
