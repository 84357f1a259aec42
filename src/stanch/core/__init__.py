"""The pure heart of Stanch: no I/O, no clock, no operating system."""
