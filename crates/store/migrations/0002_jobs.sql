-- Jobs with what they wait for, what they were given and what they told; and pools, the synthetic images that inversion makes.

-- Work that runs in the background. Rows stay when the work is done: they are its history.
CREATE TABLE jobs (
    -- UUID v7: ids have the order in which jobs were made.
    id                TEXT PRIMARY KEY CHECK (length(id) = 36),
    -- For example 'tune'. The store does not look into it.
    kind              TEXT NOT NULL,
    title             TEXT NOT NULL,
    recipe            TEXT NOT NULL CHECK (json_valid(recipe)),
    -- SHA-256 over all that decides the result. NULL once the result is gone, so that the same work can be asked for again.
    deduplication_key TEXT CHECK (length(deduplication_key) = 64),
    -- Larger comes first.
    priority          INTEGER NOT NULL,
    state             TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    cancel_requested  INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    -- Runs that ended in an error, and the one that goes on now.
    attempts          INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    most_attempts     INTEGER NOT NULL CHECK (most_attempts >= 1),
    -- Runs since the last checkpoint during which the process died.
    interruptions     INTEGER NOT NULL DEFAULT 0 CHECK (interruptions >= 0),
    -- Not before; only while queued.
    retry_at_ms       INTEGER,
    -- Who runs it, and until when without a renewal.
    lease_owner       TEXT,
    lease_until_ms    INTEGER,
    created_ms        INTEGER NOT NULL,
    started_ms        INTEGER,
    finished_ms       INTEGER,
    progress          TEXT CHECK (progress IS NULL OR json_valid(progress)),
    error             TEXT CHECK (error IS NULL OR json_valid(error)),
    result            TEXT CHECK (result IS NULL OR json_valid(result)),
    -- The newest number of job_events; kept here because old events are thinned out.
    last_event        INTEGER NOT NULL DEFAULT 0,
    -- Whether what it was given has been removed (job_inputs).
    inputs_released   INTEGER NOT NULL DEFAULT 0 CHECK (inputs_released IN (0, 1)),
    CHECK ((state = 'running') = (lease_owner IS NOT NULL)),
    CHECK ((lease_owner IS NULL) = (lease_until_ms IS NULL)),
    CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_ms IS NOT NULL))
) STRICT;

-- One job for the same work, unless the earlier ones failed or were cancelled.
CREATE UNIQUE INDEX jobs_by_deduplication_key ON jobs (deduplication_key)
    WHERE state IN ('queued', 'running', 'succeeded');

CREATE INDEX jobs_by_state ON jobs (state, priority DESC, id);

CREATE TABLE job_dependencies (
    job_id    TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    waits_for TEXT NOT NULL REFERENCES jobs (id),
    PRIMARY KEY (job_id, waits_for)
) STRICT, WITHOUT ROWID;

CREATE INDEX job_dependencies_by_waits_for ON job_dependencies (waits_for);

-- What a job was given, for example the labelled pictures of a tune job. Removed when it has succeeded or was cancelled:
-- people's pictures are not kept longer than they are needed.
CREATE TABLE job_inputs (
    job_id      TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    position    INTEGER NOT NULL CHECK (position >= 0),
    -- What it is for; belongs to the kind of the job.
    role        TEXT NOT NULL,
    name        TEXT NOT NULL,
    blob_digest TEXT NOT NULL CHECK (length(blob_digest) = 64),
    size_bytes  INTEGER NOT NULL CHECK (size_bytes >= 0),
    PRIMARY KEY (job_id, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX job_inputs_by_blob ON job_inputs (blob_digest);

-- What a job told, in order. Numbers grow within a job and have gaps where progress was thinned out.
CREATE TABLE job_events (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL CHECK (number >= 1),
    kind   TEXT NOT NULL CHECK (kind IN ('state', 'progress', 'log')),
    data   TEXT NOT NULL CHECK (json_valid(data)),
    PRIMARY KEY (job_id, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX job_events_by_kind ON job_events (job_id, kind, number);

-- Synthetic images of one adapter.
CREATE TABLE pools (
    id              TEXT PRIMARY KEY CHECK (length(id) = 36),
    -- SHA-256 over adapter, backbone and recipe: the same inversion is found again.
    key             TEXT NOT NULL UNIQUE CHECK (length(key) = 64),
    -- Without a foreign key: a pool outlives its adapter, which may be deleted at any time.
    adapter_id      TEXT NOT NULL,
    -- 'name:version' at that time.
    adapter_label   TEXT NOT NULL,
    adapter_digest  TEXT NOT NULL CHECK (length(adapter_digest) = 64),
    backbone_digest TEXT NOT NULL CHECK (length(backbone_digest) = 64),
    recipe          TEXT NOT NULL CHECK (json_valid(recipe)),
    -- What was made and how well, as JSON that belongs to whoever wrote it.
    summary         TEXT NOT NULL CHECK (json_valid(summary)),
    retention       TEXT NOT NULL CHECK (retention IN ('keep', 'after_meta_training', 'memory_only')),
    created_ms      INTEGER NOT NULL
) STRICT;

CREATE INDEX pools_by_adapter ON pools (adapter_digest);

CREATE TABLE pool_files (
    pool_id     TEXT NOT NULL REFERENCES pools (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    blob_digest TEXT NOT NULL CHECK (length(blob_digest) = 64),
    size_bytes  INTEGER NOT NULL CHECK (size_bytes >= 0),
    PRIMARY KEY (pool_id, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX pool_files_by_blob ON pool_files (blob_digest);

DROP VIEW blob_references;

-- Every use of a blob, one row each. Reference counts are derived from it and never stored. A migration that adds a table
-- with blobs must drop this view and create it again with that table: what is not listed here is removed as an orphan.
CREATE VIEW blob_references AS
    SELECT blob_digest AS digest FROM adapter_files
    UNION ALL SELECT blob_digest FROM job_inputs
    UNION ALL SELECT blob_digest FROM pool_files;
