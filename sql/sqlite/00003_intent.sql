-- +goose Up

CREATE TABLE IF NOT EXISTS intent (
  -- Wishes of operators for an id, member or not. They survive removal,
  -- rejoin, reboot and failover.
  pool       TEXT NOT NULL, -- pool
  server_id  TEXT NOT NULL, -- id; it need not be a member
  wish       TEXT NOT NULL, -- active, drain, maintenance or banned
  reason     TEXT NOT NULL, -- why
  actor      TEXT NOT NULL, -- who asked for it
  set_at     TEXT NOT NULL, -- when, UTC
  expires_at TEXT,          -- when it ends, UTC; NULL for no end
  PRIMARY KEY (pool, server_id),
  CONSTRAINT intent_id_ends_well CHECK (server_id NOT LIKE '% ')
) STRICT;
