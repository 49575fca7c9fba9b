-- Version 1: who lives, which instances the dead had, and the lives that ended.
--
-- Applied in one transaction, which also sets user_version to the number in this
-- file's name. A file that was released is never changed: what comes later goes
-- into the next one.
--
-- Moments are seconds since the epoch, fuses and gaps are seconds. States and
-- reasons are spelt as on the wire (docs/protocol.md, section 1).

-- Whose file it is: "hbsv" in ASCII. A file of another program is left alone.
PRAGMA application_id = 0x68627376;

-- One row for the service itself.
CREATE TABLE service (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    -- The highest incarnation that was ever handed out.
    last_incarnation INTEGER NOT NULL,
    -- When anything was written last. Written each time, so that a commit of
    -- nothing still finds out whether the disk takes it.
    written_at REAL NOT NULL
) STRICT;
INSERT INTO service VALUES (1, 0, 0.0);

-- The clients that live: what a restarted service has to know of them. An
-- ordinary heartbeat changes nothing here; so the last three columns are as old
-- as the client's last change.
CREATE TABLE clients (
    client_id TEXT PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('UNCALIBRATED', 'CALIBRATED', 'RUNNING')),
    -- The process it is, if it has named one, and those that it was before: a JSON
    -- array, latest last.
    instance_id TEXT,
    former_instances TEXT NOT NULL,
    fuse REAL NOT NULL,
    registered_at REAL NOT NULL,
    -- Whether it has ever reported anything but DISCONNECTED in this life.
    has_reported INTEGER NOT NULL CHECK (has_reported IN (0, 1)),
    reported_state TEXT NOT NULL,
    beats INTEGER NOT NULL,
    longest_gap_seconds REAL NOT NULL
) STRICT;

-- The instances of clients that died, so that no late message of theirs passes
-- for the next one's. Bounded: the oldest rowids go first.
CREATE TABLE graves (
    client_id TEXT NOT NULL UNIQUE,
    instance_id TEXT,
    former_instances TEXT NOT NULL
) STRICT;

-- The lives that ended: GET /clients/{id}/history. Bounded for each client, and
-- as a whole: the oldest rowids go first.
CREATE TABLE lives (
    client_id TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    registered_at REAL NOT NULL,
    ended_at REAL,
    reason TEXT,
    last_state TEXT NOT NULL,
    beats INTEGER NOT NULL,
    longest_gap_seconds REAL NOT NULL,
    UNIQUE (client_id, incarnation)
) STRICT;
