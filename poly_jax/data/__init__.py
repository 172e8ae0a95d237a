"""seqio plumbing: task ids on examples, feature conversion, vocabularies, batches."""
