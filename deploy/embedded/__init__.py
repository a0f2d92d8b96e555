"""The whole system on a bare machine: PostgreSQL, Kafka, every service and a gateway, as ordinary processes."""
