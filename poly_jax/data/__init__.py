"""Data from seqio: task ids on examples, feature conversion, vocabularies, batches."""
