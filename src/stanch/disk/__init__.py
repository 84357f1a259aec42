"""Safe ways to write to a disk, for agent, server and command line alike; standard library only."""
