"""The comparison of methods on the embedded benchmark: the demonstration and the documentation's figures."""
