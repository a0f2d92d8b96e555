"""The bounded contexts: each owns its schema, and they meet only in `shared` and in Kafka."""
