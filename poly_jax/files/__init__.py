"""Reading and writing files: JSON from outside, files that appear only when complete, new folders."""
