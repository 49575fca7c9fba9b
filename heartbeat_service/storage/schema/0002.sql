-- Version 2: a plainer name, and how many rows there are of what is bounded, so that
-- to forget the oldest costs the same however many are kept.

ALTER TABLE graves RENAME TO dead_clients;

ALTER TABLE service ADD COLUMN kept_dead INTEGER NOT NULL DEFAULT 0;
ALTER TABLE service ADD COLUMN kept_lives INTEGER NOT NULL DEFAULT 0;
UPDATE service SET
    kept_dead = (SELECT count(*) FROM dead_clients),
    kept_lives = (SELECT count(*) FROM lives);

-- REPLACE would count wrongly: what it removes fires no trigger.
CREATE TRIGGER dead_client_came AFTER INSERT ON dead_clients BEGIN
    UPDATE service SET kept_dead = kept_dead + 1;
END;
CREATE TRIGGER dead_client_went AFTER DELETE ON dead_clients BEGIN
    UPDATE service SET kept_dead = kept_dead - 1;
END;
CREATE TRIGGER life_came AFTER INSERT ON lives BEGIN
    UPDATE service SET kept_lives = kept_lives + 1;
END;
CREATE TRIGGER life_went AFTER DELETE ON lives BEGIN
    UPDATE service SET kept_lives = kept_lives - 1;
END;
