-- Version 3: which client IDs an operator keeps out.

CREATE TABLE lockouts (
    client_id TEXT PRIMARY KEY,
    -- When it may come back, in seconds since the epoch.
    until REAL NOT NULL
) STRICT;
