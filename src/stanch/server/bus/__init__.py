"""Wake-ups between the parts of the server. Lossy: the store is the truth."""
