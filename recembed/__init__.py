"""Feature embeddings for recommender systems: compact tables, trained, exported, proved."""
