"""Every figure that Stanch claims, as a program: `python -m benchmarks` lists them."""
