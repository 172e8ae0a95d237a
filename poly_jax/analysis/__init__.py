"""Analysis of what a router learned: measures, clusters, pictures and a page."""
