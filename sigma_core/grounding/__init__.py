"""Stage (a): the item ID teacher, relevance pairs of several views, and the text encoder grounded on both."""
