-- +goose Up

CREATE TABLE IF NOT EXISTS request (
  -- Answers to the request ids of clients, kept for an hour, so that a
  -- repeated request is done once.
  pool       TEXT NOT NULL,    -- pool
  request_id TEXT NOT NULL,    -- id that the client chose
  hash       TEXT NOT NULL,    -- hash of the content of the request
  revision   INTEGER NOT NULL, -- revision at which it took effect
  at         TEXT NOT NULL,    -- when, UTC
  PRIMARY KEY (pool, request_id)
) STRICT;

CREATE INDEX IF NOT EXISTS request_by_time ON request (pool, at);
