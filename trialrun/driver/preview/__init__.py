"""What `trialrun plan` prints: what a run would train, on which devices, and what it takes."""
