"""A typed client of the REST API; `stanch.client.api.Client` is the way in."""
