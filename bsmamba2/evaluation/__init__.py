"""From songs and their estimates to results that can be published."""
