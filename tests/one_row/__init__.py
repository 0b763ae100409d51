"""Of many rows one is odd: the others are done in the same run, and the odd one is neither lost nor done again and again."""
