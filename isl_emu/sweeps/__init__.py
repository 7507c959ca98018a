"""Many runs of one scenario, and how they differ."""
