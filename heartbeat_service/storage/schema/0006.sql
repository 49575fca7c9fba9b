-- Version 6: labels, since when a client is in its state, planned silences, and which
-- operator ended a life or keeps a client out.

-- A JSON object of strings.
ALTER TABLE clients ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
ALTER TABLE clients ADD COLUMN state_since REAL NOT NULL DEFAULT 0.0;
-- When a planned silence ends, in seconds since the epoch; 0 without one.
ALTER TABLE clients ADD COLUMN silent_until REAL NOT NULL DEFAULT 0.0;
-- When those that are there entered their state isn't known: not before that.
UPDATE clients SET state_since = registered_at;

ALTER TABLE lives ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
-- Null where that isn't known, or nobody did.
ALTER TABLE lives ADD COLUMN by_whom TEXT;
ALTER TABLE lockouts ADD COLUMN by_whom TEXT;
