"""The output of programs for people to read: progress bars, tables, JSON lines and their folders."""
