"""What runs real Kafka clients against a cluster and judges them: see `ops/compat/README.md`."""
