"""FastAPI for people and programs: thin, and generic over the registry."""
