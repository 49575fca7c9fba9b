-- Version 4: when a dead client died, and which ones superseded nobody: these make room
-- for others first. The rest is kept for a day.

ALTER TABLE dead_clients ADD COLUMN ended_at REAL NOT NULL DEFAULT 0.0;
-- Those that are there are taken to have died now.
UPDATE dead_clients SET ended_at = (julianday('now') - 2440587.5) * 86400.0;

CREATE INDEX dead_that_superseded_nobody ON dead_clients (former_instances)
    WHERE former_instances = '[]';
