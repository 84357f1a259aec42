"""The worker that scans: rules and indicators, files and memory, in a process of its own."""
