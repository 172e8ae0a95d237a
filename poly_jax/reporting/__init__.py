"""What programs leave for people to read: progress bars, tables, lines of JSON, and the folders of these."""
