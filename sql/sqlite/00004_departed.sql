-- +goose Up

CREATE TABLE IF NOT EXISTS departed (
  -- What is remembered of servers that were removed by verdict.
  pool         TEXT NOT NULL,    -- pool
  server_id    TEXT NOT NULL,    -- id of the server
  incarnation  INTEGER NOT NULL, -- incarnation that was removed
  cause        TEXT NOT NULL,    -- crashed, unreachable, lossy, shutdown or operator
  boot_id      TEXT NOT NULL,    -- boot of the host then
  left_at      TEXT NOT NULL,    -- when it was removed, UTC
  flap_score   REAL NOT NULL,    -- removals counted with a half-life, as of left_at
  hold_down_ms INTEGER NOT NULL, -- how long a return is held, in milliseconds
  PRIMARY KEY (pool, server_id),
  CONSTRAINT departed_id_ends_well CHECK (server_id NOT LIKE '% ')
) STRICT;
