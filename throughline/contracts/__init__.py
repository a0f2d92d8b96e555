"""What other systems rely on, generated from the code: JSON Schemas of facts, AsyncAPI, OpenAPI, the table of topics.

`python -m throughline.contracts` writes it below `docs/`; with `--check` it only says what is not in step, and ends
with status 1. A fact's schema that is there may only gain optional fields: anything else is refused, since old facts
stay in Kafka for ever and are read again at every rebuild.
"""
