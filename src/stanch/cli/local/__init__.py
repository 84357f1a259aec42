"""`stanch local`: on the endpoint itself, by hand."""
