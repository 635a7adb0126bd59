"""What the trials of a run say: variants over seeds, their order, the winner, and how sure it is.

`run_summary` tells the story. Refuses to select by anything but validation numbers.
"""
