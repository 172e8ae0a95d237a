"""Skills: adapter parameters, how they mix, how a site applies them."""
