"""Credits told to others: a fact for each conversion and model whose credits changed."""
