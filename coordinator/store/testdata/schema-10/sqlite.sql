CREATE TABLE IF NOT EXISTS pool (
  -- A pool of servers. Every change of a pool raises revision by exactly one,
  -- in an UPDATE that names epoch and revision: that is the fence against a
  -- leader of the past and the only source of revisions.
  name               TEXT NOT NULL,    -- name of the pool
  epoch              INTEGER NOT NULL, -- epoch of the leader that may write
  revision           INTEGER NOT NULL, -- durable changes so far
  last_change_id     TEXT NOT NULL,    -- id of the change that made this revision; tells whether a COMMIT of unknown outcome went through
  compacted_revision INTEGER NOT NULL, -- events up to this revision may be gone; 0 while none are
  reference_size     INTEGER NOT NULL, -- size the pool is meant to have, for the floor rule
  settings           TEXT NOT NULL,    -- settings of the operator; durations in nanoseconds
  PRIMARY KEY (name),
  CONSTRAINT pool_name_ends_well CHECK (name NOT LIKE '% ')
) STRICT;

CREATE TABLE IF NOT EXISTS server (
  -- The server table: who is in a pool and who watches whom. Row A says: A
  -- watches first_buddy and second_buddy, and they watch A. Following
  -- first_buddy goes once round the ring. A server that is down has no row.
  pool            TEXT NOT NULL,    -- pool the server is in
  server_id       TEXT NOT NULL,    -- id of the server, unique in its pool
  first_buddy     TEXT,             -- next server on the ring; NULL in a pool of one
  second_buddy    TEXT,             -- previous server on the ring; equal to first_buddy in a pool of two
  phase           TEXT NOT NULL,    -- joining, active, service_down, draining or held
  incarnation     INTEGER NOT NULL, -- revision of the join; a removed incarnation never comes back
  probe_addresses TEXT NOT NULL,    -- what buddies ping: at most one address per family, separated by commas
  probe           TEXT NOT NULL,    -- how buddies ping: icmp or tcp://:PORT
  endpoints       TEXT NOT NULL,    -- where clients reach the service: list of {name, address, protocol}
  zone            TEXT NOT NULL,    -- zone of the host, or empty
  rack            TEXT NOT NULL,    -- failure domain in the zone, or empty for one of its own
  weight          INTEGER NOT NULL, -- share of new work; 100 is usual, 0 is none
  labels          TEXT NOT NULL,    -- labels as an object
  boot_id         TEXT NOT NULL,    -- boot of the host that joined
  instance_id     TEXT NOT NULL,    -- run of the agent that joined
  identity        TEXT NOT NULL,    -- URI of the certificate by which it joined, or empty without TLS
  joined_at       TEXT NOT NULL,    -- when this incarnation joined, UTC
  phase_since     TEXT NOT NULL,    -- when it entered its phase, UTC
  held_until      TEXT,             -- when phase held ends, UTC; NULL otherwise
  PRIMARY KEY (pool, server_id),
  CONSTRAINT server_id_ends_well CHECK (server_id NOT LIKE '% ')
) STRICT;

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

CREATE TABLE IF NOT EXISTS event (
  -- History of the pools, with the evidence behind every decision. Read it
  -- ORDER BY revision, seq.
  pool        TEXT NOT NULL,    -- pool
  revision    INTEGER NOT NULL, -- change it belongs to
  seq         INTEGER NOT NULL, -- place among the events of that change, from 0
  epoch       INTEGER NOT NULL, -- epoch of the leader
  at          TEXT NOT NULL,    -- when, by the clock of the coordinator, UTC
  kind        TEXT NOT NULL,    -- joined, activated, removed, not_removed, ...
  server_id   TEXT NOT NULL,    -- server it is about, or empty for the pool
  incarnation INTEGER NOT NULL, -- incarnation of that server, or 0
  cause       TEXT NOT NULL,    -- why it left, or empty
  actor       TEXT NOT NULL,    -- who asked for it
  text        TEXT NOT NULL,    -- one plain sentence
  explanation TEXT,             -- who saw what and when, which rule fired, which rows changed
  PRIMARY KEY (pool, revision, seq)
) STRICT;

CREATE INDEX IF NOT EXISTS event_by_server ON event (pool, server_id, revision, seq);

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

CREATE TABLE IF NOT EXISTS router (
  -- Routers and what they have applied.
  router_id TEXT NOT NULL, -- id of the router
  version   TEXT NOT NULL, -- its version
  last_seen TEXT NOT NULL, -- when it was last heard, UTC
  applied   TEXT NOT NULL, -- list of {pool, epoch, revision}
  PRIMARY KEY (router_id),
  CONSTRAINT router_id_ends_well CHECK (router_id NOT LIKE '% ')
) STRICT;

CREATE TABLE IF NOT EXISTS leader (
  -- The one row says which coordinator leads. Taking over is an UPDATE that
  -- names the epoch and renewal seen before.
  id        INTEGER NOT NULL, -- always 1
  store_id  TEXT NOT NULL,    -- identifies this database; another one means another history; set by the first leader
  holder    TEXT NOT NULL,    -- id of the coordinator that leads, or empty before the first
  advertise TEXT NOT NULL,    -- address at which agents and routers reach it
  epoch     INTEGER NOT NULL, -- counts leaders
  renewal   INTEGER NOT NULL, -- counts signs of life and fenced writes; standbys watch whether it moves
  since     TEXT,             -- when this epoch began, by the clock of its leader, UTC; for people only
  PRIMARY KEY (id),
  CONSTRAINT leader_is_one CHECK (id = 1)
) STRICT;

-- The one row of leader; the first leader gives the database its identity.
INSERT OR IGNORE INTO leader (id, store_id, holder, advertise, epoch, renewal) VALUES (1, '', '', '', 0, 0);

CREATE TABLE IF NOT EXISTS coordinator (
  -- Coordinators on this database. Agents are told the addresses of those seen
  -- lately.
  coordinator_id TEXT NOT NULL, -- id of the coordinator
  instance       TEXT NOT NULL, -- the run of the program that took the lead last under this id, or empty; tells two of one id apart
  advertise      TEXT NOT NULL, -- address at which agents and routers reach it, or empty
  last_seen      TEXT NOT NULL, -- when it was last there, by its own clock, UTC
  PRIMARY KEY (coordinator_id)
) STRICT;

CREATE TABLE goose_db_version (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  version_id INTEGER NOT NULL,
  is_applied INTEGER NOT NULL,
  tstamp TIMESTAMP DEFAULT (datetime('now'))
);
