-- What installations lack that were made before activations said why and could be called off; others have it all.
SET LOCAL lock_timeout = '5s';
ALTER TABLE rule_activations ADD COLUMN IF NOT EXISTS decided_at timestamptz;
ALTER TABLE rule_activations ALTER COLUMN decided_at SET DEFAULT clock_timestamp();
ALTER TABLE rule_activations ADD COLUMN IF NOT EXISTS reason text NOT NULL DEFAULT '';
ALTER TABLE rule_activations ADD COLUMN IF NOT EXISTS rollback boolean NOT NULL DEFAULT false;
ALTER TABLE rule_activations ADD COLUMN IF NOT EXISTS announce boolean NOT NULL DEFAULT true;
CREATE TABLE IF NOT EXISTS rule_cancellations (
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
