"""The user's Python code: found, read, hashed, sent to other machines, and named in errors."""
