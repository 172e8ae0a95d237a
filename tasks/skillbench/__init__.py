"""The embedded benchmark: generated text-to-text tasks, each a composition of known latent skills."""
