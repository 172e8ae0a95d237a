"""Models for Hugging Face's transformers."""
