-- Version 5: which lives ever got beyond UNCALIBRATED: some of them are kept for longer.

ALTER TABLE lives ADD COLUMN left_uncalibrated INTEGER NOT NULL DEFAULT 0
    CHECK (left_uncalibrated IN (0, 1));
-- Of those that are there, the state in which they ended has to tell.
UPDATE lives SET left_uncalibrated = 1 WHERE last_state <> 'UNCALIBRATED';
