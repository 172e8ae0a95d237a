"""Tasks x methods x seeds: many few-shot adaptations, their scores and the table of them."""
