"""`python -m trialrun` is the command `trialrun`."""

from trialrun.cli import main

main()
