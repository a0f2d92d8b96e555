-- Rule documents, in the schema of the service that owns them. A version is never updated or deleted.

CREATE TABLE rule_documents (
    kind text NOT NULL,
    name text NOT NULL,
    version integer NOT NULL,
    document json NOT NULL,
    author text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, name, version)
);

-- Which version counts from when on: the last row by (effective_at, sequence) whose time has come. A rollback goes back
-- over what was activated before; `announce` says whether what follows of itself from the switch is told to others.
CREATE TABLE rule_activations (
    kind text NOT NULL,
    name text NOT NULL,
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    version integer NOT NULL,
    author text NOT NULL,
    effective_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_at timestamptz DEFAULT clock_timestamp(),
    reason text NOT NULL DEFAULT '',
    rollback boolean NOT NULL DEFAULT false,
    announce boolean NOT NULL DEFAULT true,
    PRIMARY KEY (kind, name, sequence),
    FOREIGN KEY (kind, name, version) REFERENCES rule_documents (kind, name, version)
);
CREATE INDEX rule_activations_latest ON rule_activations (kind, name, effective_at DESC, sequence DESC);

-- Activations that were planned and called off before their time, with who did it and why.
CREATE TABLE rule_cancellations (
    kind text NOT NULL,
    name text NOT NULL,
    sequence bigint NOT NULL,
    version integer NOT NULL,
    author text NOT NULL,
    effective_at timestamptz NOT NULL,
    decided_at timestamptz,
    reason text NOT NULL,
    announce boolean NOT NULL,
    cancelled_by text NOT NULL,
    cancelled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, name, sequence)
);
