CREATE TABLE IF NOT EXISTS pool (
  name               VARCHAR(63) NOT NULL     COMMENT 'name of the pool',
  epoch              BIGINT UNSIGNED NOT NULL COMMENT 'epoch of the leader that may write',
  revision           BIGINT UNSIGNED NOT NULL COMMENT 'durable changes so far',
  last_change_id     VARCHAR(128) NOT NULL    COMMENT 'id of the change that made this revision; tells whether a COMMIT of unknown outcome went through',
  compacted_revision BIGINT UNSIGNED NOT NULL COMMENT 'events up to this revision may be gone; 0 while none are',
  reference_size     INT UNSIGNED NOT NULL    COMMENT 'size the pool is meant to have, for the floor rule',
  settings           JSON NOT NULL            COMMENT 'settings of the operator; durations in nanoseconds',
  PRIMARY KEY (name),
  CONSTRAINT pool_name_ends_well CHECK (name NOT LIKE '% ')
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'A pool of servers. Every change of a pool raises revision by exactly one, in an UPDATE that names epoch and revision: that is the fence against a leader of the past and the only source of revisions.';

CREATE TABLE IF NOT EXISTS server (
  pool            VARCHAR(63) NOT NULL     COMMENT 'pool the server is in',
  server_id       VARCHAR(253) NOT NULL    COMMENT 'id of the server, unique in its pool',
  first_buddy     VARCHAR(253) NULL        COMMENT 'next server on the ring; NULL in a pool of one',
  second_buddy    VARCHAR(253) NULL        COMMENT 'previous server on the ring; equal to first_buddy in a pool of two',
  phase           VARCHAR(16) NOT NULL     COMMENT 'joining, active, service_down, draining or held',
  incarnation     BIGINT UNSIGNED NOT NULL COMMENT 'revision of the join; a removed incarnation never comes back',
  probe_addresses VARCHAR(128) NOT NULL    COMMENT 'what buddies ping: at most one address per family, separated by commas',
  probe           VARCHAR(32) NOT NULL     COMMENT 'how buddies ping: icmp or tcp://:PORT',
  endpoints       JSON NOT NULL            COMMENT 'where clients reach the service: list of {name, address, protocol}',
  zone            VARCHAR(253) NOT NULL    COMMENT 'zone of the host, or empty',
  rack            VARCHAR(253) NOT NULL    COMMENT 'failure domain in the zone, or empty for one of its own',
  weight          INT UNSIGNED NOT NULL    COMMENT 'share of new work; 100 is usual, 0 is none',
  labels          JSON NOT NULL            COMMENT 'labels as an object',
  boot_id         VARCHAR(128) NOT NULL    COMMENT 'boot of the host that joined',
  instance_id     VARCHAR(128) NOT NULL    COMMENT 'run of the agent that joined',
  identity        VARCHAR(2048) NOT NULL   COMMENT 'URI of the certificate by which it joined, or empty without TLS',
  joined_at       DATETIME(6) NOT NULL     COMMENT 'when this incarnation joined, UTC',
  phase_since     DATETIME(6) NOT NULL     COMMENT 'when it entered its phase, UTC',
  held_until      DATETIME(6) NULL         COMMENT 'when phase held ends, UTC; NULL otherwise',
  PRIMARY KEY (pool, server_id),
  CONSTRAINT server_id_ends_well CHECK (server_id NOT LIKE '% ')
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'The server table: who is in a pool and who watches whom. Row A says: A watches first_buddy and second_buddy, and they watch A. Following first_buddy goes once round the ring. A server that is down has no row.';

CREATE TABLE IF NOT EXISTS intent (
  pool       VARCHAR(63) NOT NULL   COMMENT 'pool',
  server_id  VARCHAR(253) NOT NULL  COMMENT 'id; it need not be a member',
  wish       VARCHAR(16) NOT NULL   COMMENT 'active, drain, maintenance or banned',
  reason     VARCHAR(1024) NOT NULL COMMENT 'why',
  actor      VARCHAR(2048) NOT NULL COMMENT 'who asked for it',
  set_at     DATETIME(6) NOT NULL   COMMENT 'when, UTC',
  expires_at DATETIME(6) NULL       COMMENT 'when it ends, UTC; NULL for no end',
  PRIMARY KEY (pool, server_id),
  CONSTRAINT intent_id_ends_well CHECK (server_id NOT LIKE '% ')
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'Wishes of operators for an id, member or not. They survive removal, rejoin, reboot and failover.';

CREATE TABLE IF NOT EXISTS departed (
  pool         VARCHAR(63) NOT NULL     COMMENT 'pool',
  server_id    VARCHAR(253) NOT NULL    COMMENT 'id of the server',
  incarnation  BIGINT UNSIGNED NOT NULL COMMENT 'incarnation that was removed',
  cause        VARCHAR(16) NOT NULL     COMMENT 'crashed, unreachable, lossy, shutdown or operator',
  boot_id      VARCHAR(128) NOT NULL    COMMENT 'boot of the host then',
  left_at      DATETIME(6) NOT NULL     COMMENT 'when it was removed, UTC',
  flap_score   DOUBLE NOT NULL          COMMENT 'removals counted with a half-life, as of left_at',
  hold_down_ms BIGINT UNSIGNED NOT NULL COMMENT 'how long a return is held, in milliseconds',
  PRIMARY KEY (pool, server_id),
  CONSTRAINT departed_id_ends_well CHECK (server_id NOT LIKE '% ')
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'What is remembered of servers that were removed by verdict.';

CREATE TABLE IF NOT EXISTS event (
  pool        VARCHAR(63) NOT NULL     COMMENT 'pool',
  revision    BIGINT UNSIGNED NOT NULL COMMENT 'change it belongs to',
  seq         INT UNSIGNED NOT NULL    COMMENT 'place among the events of that change, from 0',
  epoch       BIGINT UNSIGNED NOT NULL COMMENT 'epoch of the leader',
  at          DATETIME(6) NOT NULL     COMMENT 'when, by the clock of the coordinator, UTC',
  kind        VARCHAR(32) NOT NULL     COMMENT 'joined, activated, removed, not_removed, ...',
  server_id   VARCHAR(253) NOT NULL    COMMENT 'server it is about, or empty for the pool',
  incarnation BIGINT UNSIGNED NOT NULL COMMENT 'incarnation of that server, or 0',
  cause       VARCHAR(16) NOT NULL     COMMENT 'why it left, or empty',
  actor       VARCHAR(2048) NOT NULL   COMMENT 'who asked for it',
  text        TEXT NOT NULL            COMMENT 'one plain sentence',
  explanation JSON NULL                COMMENT 'who saw what and when, which rule fired, which rows changed',
  PRIMARY KEY (pool, revision, seq),
  KEY event_by_server (pool, server_id, revision, seq)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'History of the pools, with the evidence behind every decision. Read it ORDER BY revision, seq.';

CREATE TABLE IF NOT EXISTS request (
  pool       VARCHAR(63) NOT NULL     COMMENT 'pool',
  request_id VARCHAR(128) NOT NULL    COMMENT 'id that the client chose',
  hash       VARCHAR(128) NOT NULL    COMMENT 'hash of the content of the request',
  revision   BIGINT UNSIGNED NOT NULL COMMENT 'revision at which it took effect',
  at         DATETIME(6) NOT NULL     COMMENT 'when, UTC',
  PRIMARY KEY (pool, request_id),
  KEY request_by_time (pool, at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'Answers to the request ids of clients, kept for an hour, so that a repeated request is done once.';

CREATE TABLE IF NOT EXISTS router (
  router_id VARCHAR(253) NOT NULL COMMENT 'id of the router',
  version   VARCHAR(128) NOT NULL COMMENT 'its version',
  last_seen DATETIME(6) NOT NULL  COMMENT 'when it was last heard, UTC',
  applied   JSON NOT NULL         COMMENT 'list of {pool, epoch, revision}',
  PRIMARY KEY (router_id),
  CONSTRAINT router_id_ends_well CHECK (router_id NOT LIKE '% ')
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'Routers and what they have applied.';

CREATE TABLE IF NOT EXISTS leader (
  id        TINYINT UNSIGNED NOT NULL COMMENT 'always 1',
  store_id  VARCHAR(64) NOT NULL      COMMENT 'identifies this database; another one means another history; set by the first leader',
  holder    VARCHAR(253) NOT NULL     COMMENT 'id of the coordinator that leads, or empty before the first',
  advertise VARCHAR(512) NOT NULL     COMMENT 'address at which agents and routers reach it',
  epoch     BIGINT UNSIGNED NOT NULL  COMMENT 'counts leaders',
  renewal   BIGINT UNSIGNED NOT NULL  COMMENT 'counts signs of life and fenced writes; standbys watch whether it moves',
  since     DATETIME(6) NULL          COMMENT 'when this epoch began, by the clock of its leader, UTC; for people only',
  PRIMARY KEY (id),
  CONSTRAINT leader_is_one CHECK (id = 1)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'The one row says which coordinator leads. Taking over is an UPDATE that names the epoch and renewal seen before.';

-- The one row of leader; the first leader gives the database its identity.
INSERT IGNORE INTO leader (id, store_id, holder, advertise, epoch, renewal) VALUES (1, '', '', '', 0, 0);

CREATE TABLE IF NOT EXISTS coordinator (
  coordinator_id VARCHAR(253) NOT NULL COMMENT 'id of the coordinator',
  instance       VARCHAR(64) NOT NULL  COMMENT 'the run of the program that took the lead last under this id, or empty; tells two of one id apart',
  advertise      VARCHAR(512) NOT NULL COMMENT 'address at which agents and routers reach it, or empty',
  last_seen      DATETIME(6) NOT NULL  COMMENT 'when it was last there, by its own clock, UTC',
  PRIMARY KEY (coordinator_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'Coordinators on this database. Agents are told the addresses of those seen lately.';

CREATE TABLE goose_db_version (
  id bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  version_id bigint NOT NULL,
  is_applied boolean NOT NULL,
  tstamp datetime NULL default CURRENT_TIMESTAMP,
  PRIMARY KEY(id)
);
