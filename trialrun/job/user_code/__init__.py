"""The user's own code: its files, how it is loaded, and where in it an error arose."""
