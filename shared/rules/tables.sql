-- Rule documents, in the schema of the service that owns them. Nothing here is ever updated or deleted.

CREATE TABLE rule_documents (
    kind text NOT NULL,
    name text NOT NULL,
    version integer NOT NULL,
    document json NOT NULL,
    author text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, name, version)
);

-- Which version counts from when on: the last row by (effective_at, sequence) whose time has come.
CREATE TABLE rule_activations (
    kind text NOT NULL,
    name text NOT NULL,
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    version integer NOT NULL,
    author text NOT NULL,
    effective_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, name, sequence),
    FOREIGN KEY (kind, name, version) REFERENCES rule_documents (kind, name, version)
);
CREATE INDEX rule_activations_latest ON rule_activations (kind, name, effective_at DESC, sequence DESC);
