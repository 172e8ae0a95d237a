"""Export of models to Hugging Face's transformers."""
