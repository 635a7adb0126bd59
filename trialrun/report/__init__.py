"""What people see of a run: terminal tables, figures, and the page. All from the run folder."""
