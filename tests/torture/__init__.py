"""The torture of the isolation: random sequences of whatever may happen to it, judged by an observer outside."""
