"""The endpoint: link, executor, journal, spool, supervisor."""
