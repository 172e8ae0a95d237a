"""Analysis of what a router learned: measures, clusters, figures and an HTML page."""
