-- Who is whom: in every service's projection. Facts keep the id they came with; these tables resolve it.

CREATE TABLE identity_aliases (
    lead_id text PRIMARY KEY,
    into_id text NOT NULL,
    active boolean NOT NULL,
    at timestamptz NOT NULL,
    event_id text NOT NULL
);
CREATE INDEX identity_aliases_into ON identity_aliases (into_id) WHERE active;

CREATE TABLE identity_links (
    anonymous_lead_id text NOT NULL,
    at timestamptz NOT NULL,
    lead_id text NOT NULL,
    PRIMARY KEY (anonymous_lead_id, at, lead_id)
);
CREATE INDEX identity_links_lead ON identity_links (lead_id);

CREATE TABLE identity_erased (
    lead_id text PRIMARY KEY,
    at timestamptz NOT NULL
);
