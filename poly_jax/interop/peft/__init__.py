"""Import and export of PEFT's adapters."""
