"""Import from and export to other systems' checkpoints."""
