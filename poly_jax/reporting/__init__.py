"""What people read of a run: progress bars, tables and lines of JSON."""
