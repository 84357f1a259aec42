"""The only code that touches the operating system of an endpoint; one file per protocol of core/host.py."""
