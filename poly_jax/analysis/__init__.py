"""What a router learned: statistics and plots."""
