-- Classifiers that stay: classes, their pictures, what undoes the last changes, batches of sorted pictures; features of pictures, and answers to
-- requests that may come twice.

CREATE TABLE classifiers (
    id              TEXT PRIMARY KEY CHECK (length(id) = 36),
    name            TEXT NOT NULL,
    -- The name as names are compared.
    name_key        TEXT NOT NULL,
    -- Without an action on delete, so that a backbone in use cannot go.
    backbone_digest TEXT NOT NULL REFERENCES backbones (digest),
    -- Which adapter it sees through, as JSON. Without a foreign key: the pictures outlive the adapter.
    adapter         TEXT NOT NULL CHECK (json_valid(adapter)),
    -- JSON that belongs to whoever wrote it.
    head            TEXT NOT NULL CHECK (json_valid(head)),
    -- 'features': the original pictures are never kept, only thumbnails and features.
    privacy         TEXT NOT NULL CHECK (privacy IN ('pictures', 'features')),
    -- Rises by one with each change.
    revision        INTEGER NOT NULL CHECK (revision >= 1),
    created_ms      INTEGER NOT NULL,
    created_by      TEXT NOT NULL,
    changed_ms      INTEGER NOT NULL,
    changed_by      TEXT NOT NULL,
    last_used_ms    INTEGER
) STRICT;

CREATE INDEX classifiers_by_name ON classifiers (name_key);
CREATE INDEX classifiers_by_backbone ON classifiers (backbone_digest);

-- Classes. One without a position is deleted and can come back by undoing.
CREATE TABLE classifier_classes (
    id            TEXT PRIMARY KEY CHECK (length(id) = 36),
    classifier_id TEXT NOT NULL REFERENCES classifiers (id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    name_key      TEXT NOT NULL,
    position      INTEGER
) STRICT;

CREATE UNIQUE INDEX classifier_classes_by_name ON classifier_classes (classifier_id, name_key) WHERE position IS NOT NULL;
CREATE INDEX classifier_classes_in_order ON classifier_classes (classifier_id, position);

-- Pictures of classes. One without a class is deleted and can come back by undoing.
CREATE TABLE classifier_pictures (
    -- UUID v7: ids have the order in which pictures were added.
    id               TEXT PRIMARY KEY CHECK (length(id) = 36),
    classifier_id    TEXT NOT NULL REFERENCES classifiers (id) ON DELETE CASCADE,
    class_id         TEXT REFERENCES classifier_classes (id),
    -- SHA-256 of the bytes that were sent, whether they are kept or not.
    picture_digest     TEXT NOT NULL CHECK (length(picture_digest) = 64),
    -- The same where they are kept, NULL where they are not.
    original_digest  TEXT CHECK (original_digest IS NULL OR original_digest = picture_digest),
    thumbnail_digest TEXT NOT NULL CHECK (length(thumbnail_digest) = 64),
    name             TEXT NOT NULL,
    media_type       TEXT NOT NULL,
    -- Of the bytes that were sent.
    size_bytes       INTEGER NOT NULL CHECK (size_bytes >= 0),
    -- Of the original, where it is kept, and the thumbnail.
    stored_bytes     INTEGER NOT NULL CHECK (stored_bytes >= 0),
    width            INTEGER NOT NULL CHECK (width >= 1),
    height           INTEGER NOT NULL CHECK (height >= 1),
    added_ms         INTEGER NOT NULL,
    added_by         TEXT NOT NULL
) STRICT;

-- A class shows a picture once.
CREATE UNIQUE INDEX classifier_pictures_once ON classifier_pictures (class_id, picture_digest) WHERE class_id IS NOT NULL;
-- Counts and sizes of a classifier are read from this index alone.
CREATE INDEX classifier_pictures_by_class ON classifier_pictures (classifier_id, class_id, stored_bytes);
CREATE INDEX classifier_pictures_in_class ON classifier_pictures (class_id, id);
CREATE INDEX classifier_pictures_in_order ON classifier_pictures (classifier_id, id);
CREATE INDEX classifier_pictures_by_digest ON classifier_pictures (picture_digest);
CREATE INDEX classifier_pictures_by_original ON classifier_pictures (original_digest);
CREATE INDEX classifier_pictures_by_thumbnail ON classifier_pictures (thumbnail_digest);

-- What happened to a classifier. The newest can be undone: then its edits are there.
CREATE TABLE classifier_changes (
    classifier_id   TEXT NOT NULL REFERENCES classifiers (id) ON DELETE CASCADE,
    -- The revision that it led to.
    revision        INTEGER NOT NULL,
    change          TEXT NOT NULL CHECK (json_valid(change)),
    made_ms         INTEGER NOT NULL,
    made_by         TEXT NOT NULL,
    -- 'done' can be undone, 'undone' can be redone; 'closed' neither: too old, or itself an undoing.
    state           TEXT NOT NULL CHECK (state IN ('done', 'undone', 'closed')),
    -- Name, adapter and head as JSON, where it changed one of them.
    settings_before TEXT CHECK (json_valid(settings_before)),
    settings_after  TEXT CHECK (json_valid(settings_after)),
    PRIMARY KEY (classifier_id, revision)
) STRICT, WITHOUT ROWID;

-- A class before and after a change; without a position it was not there.
CREATE TABLE classifier_class_edits (
    classifier_id   TEXT NOT NULL,
    revision        INTEGER NOT NULL,
    class_id        TEXT NOT NULL,
    name_before     TEXT NOT NULL,
    key_before      TEXT NOT NULL,
    position_before INTEGER,
    name_after      TEXT NOT NULL,
    key_after       TEXT NOT NULL,
    position_after  INTEGER,
    PRIMARY KEY (classifier_id, revision, class_id),
    FOREIGN KEY (classifier_id, revision) REFERENCES classifier_changes (classifier_id, revision) ON DELETE CASCADE
        DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

CREATE INDEX classifier_class_edits_by_class ON classifier_class_edits (class_id);

-- The class of a picture before and after a change; without one it was not there.
CREATE TABLE classifier_picture_edits (
    classifier_id TEXT NOT NULL,
    revision      INTEGER NOT NULL,
    picture_id      TEXT NOT NULL,
    class_before  TEXT,
    class_after   TEXT,
    PRIMARY KEY (classifier_id, revision, picture_id),
    FOREIGN KEY (classifier_id, revision) REFERENCES classifier_changes (classifier_id, revision) ON DELETE CASCADE
        DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

CREATE INDEX classifier_picture_edits_by_image ON classifier_picture_edits (picture_id);

-- What was computed from a classifier at one of its revisions. It can be computed again.
CREATE TABLE classifier_results (
    classifier_id  TEXT NOT NULL REFERENCES classifiers (id) ON DELETE CASCADE,
    -- What it is; belongs to whoever wrote it.
    kind           TEXT NOT NULL,
    -- '' is the bare backbone.
    adapter_digest TEXT NOT NULL CHECK (length(adapter_digest) IN (0, 64)),
    revision       INTEGER NOT NULL,
    content        BLOB NOT NULL,
    UNIQUE (classifier_id, kind, adapter_digest)
) STRICT;

-- How features were made of a picture: everything of their key but the picture.
CREATE TABLE feature_spaces (
    number          INTEGER PRIMARY KEY,
    -- '' is the picture as it is; else which changed copy of it.
    variant         TEXT NOT NULL,
    backbone_digest TEXT NOT NULL CHECK (length(backbone_digest) = 64),
    -- '' is the bare backbone.
    adapter_digest  TEXT NOT NULL CHECK (length(adapter_digest) IN (0, 64)),
    image_size      INTEGER NOT NULL CHECK (image_size >= 1),
    preprocessing   INTEGER NOT NULL,
    UNIQUE (variant, backbone_digest, adapter_digest, image_size, preprocessing)
) STRICT;

-- Features that can be computed again; the least recently used give way. Values are f32, little-endian.
CREATE TABLE feature_cache (
    number       INTEGER PRIMARY KEY,
    picture_digest TEXT NOT NULL CHECK (length(picture_digest) = 64),
    space        INTEGER NOT NULL REFERENCES feature_spaces (number),
    -- Hours since 1970, as it only orders what gives way.
    used_hour    INTEGER NOT NULL,
    value        BLOB NOT NULL CHECK (length(value) % 4 = 0),
    UNIQUE (picture_digest, space)
) STRICT;

CREATE INDEX feature_cache_by_use ON feature_cache (used_hour, number);
CREATE INDEX feature_cache_by_space ON feature_cache (space);

-- Bytes of the cache: of each value, and 256 for its key.
CREATE TABLE feature_cache_size (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    bytes INTEGER NOT NULL CHECK (bytes >= 0)
) STRICT;

INSERT INTO feature_cache_size (one, bytes) VALUES (1, 0);

CREATE TRIGGER feature_cache_grows AFTER INSERT ON feature_cache BEGIN
    UPDATE feature_cache_size SET bytes = bytes + 256 + length(new.value);
END;

CREATE TRIGGER feature_cache_shrinks AFTER DELETE ON feature_cache BEGIN
    UPDATE feature_cache_size SET bytes = bytes - 256 - length(old.value);
END;

-- Features of pictures whose originals are not kept. Nothing can make them again: they stay as long as their pictures.
CREATE TABLE classifier_features (
    classifier_id TEXT NOT NULL REFERENCES classifiers (id) ON DELETE CASCADE,
    picture_digest  TEXT NOT NULL CHECK (length(picture_digest) = 64),
    space         INTEGER NOT NULL REFERENCES feature_spaces (number),
    value         BLOB NOT NULL CHECK (length(value) % 4 = 0),
    UNIQUE (classifier_id, picture_digest, space)
) STRICT;

CREATE INDEX classifier_features_by_space ON classifier_features (space);

-- Many pictures that a classifier sorted, as one piece of work.
CREATE TABLE batches (
    id            TEXT PRIMARY KEY CHECK (length(id) = 36),
    classifier_id TEXT NOT NULL REFERENCES classifiers (id) ON DELETE CASCADE,
    -- The job that sorts it. Without a foreign key: a batch may be made before its job.
    job_id        TEXT NOT NULL CHECK (length(job_id) = 36),
    name          TEXT NOT NULL,
    -- Rows that it will have.
    pictures      INTEGER NOT NULL CHECK (pictures >= 1),
    created_ms    INTEGER NOT NULL,
    created_by    TEXT NOT NULL
) STRICT;

CREATE INDEX batches_by_classifier ON batches (classifier_id, id);
CREATE INDEX batches_by_job ON batches (job_id);

CREATE TABLE batch_rows (
    batch_id         TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    position         INTEGER NOT NULL CHECK (position >= 0),
    name             TEXT NOT NULL,
    -- SHA-256 of the bytes that were sent; NULL where they are not kept.
    original_digest  TEXT CHECK (length(original_digest) = 64),
    thumbnail_digest TEXT CHECK (length(thumbnail_digest) = 64),
    stored_bytes     INTEGER NOT NULL CHECK (stored_bytes >= 0),
    -- 'sorted' has an answer, 'unusable' a fault.
    status           TEXT NOT NULL CHECK (status IN ('sorted', 'unusable')),
    -- The class of the answer. Without a foreign key: an answer outlives its class.
    class_id         TEXT,
    class_name       TEXT,
    -- JSON array of the likeliest classes.
    labels           TEXT NOT NULL CHECK (json_type(labels) = 'array'),
    confidence       REAL,
    novelty          REAL,
    -- None of the classes.
    rejected         INTEGER NOT NULL CHECK (rejected IN (0, 1)),
    fault            TEXT CHECK (json_valid(fault)),
    PRIMARY KEY (batch_id, position),
    CHECK ((status = 'unusable') = (fault IS NOT NULL)),
    CHECK ((status = 'sorted') = (class_id IS NOT NULL)),
    CHECK ((status = 'sorted') = (class_name IS NOT NULL)),
    CHECK ((status = 'sorted') = (confidence IS NOT NULL))
) STRICT;

CREATE INDEX batch_rows_by_original ON batch_rows (original_digest);
CREATE INDEX batch_rows_by_thumbnail ON batch_rows (thumbnail_digest);

-- Requests that may come twice and must act once.
CREATE TABLE idempotency_keys (
    route          TEXT NOT NULL,
    key            TEXT NOT NULL,
    -- SHA-256 of what was asked.
    request_digest TEXT NOT NULL CHECK (length(request_digest) = 64),
    -- The id for what it makes, however often it is tried.
    made_id        TEXT NOT NULL CHECK (length(made_id) = 36),
    -- The opening of the data folder in which it is being answered.
    opening        TEXT NOT NULL CHECK (length(opening) = 36),
    -- NULL until it is answered.
    status         INTEGER,
    -- NULL, too, where it is too long to be kept.
    body           TEXT,
    expires_ms     INTEGER NOT NULL,
    PRIMARY KEY (route, key),
    CHECK (body IS NULL OR status IS NOT NULL)
) STRICT;

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_ms);

DROP VIEW blob_references;

-- Every use of a blob, one row each. Reference counts are derived from it and never stored. A migration that adds a table
-- with blobs must drop this view and create it again with that table: what is not listed here is removed as an orphan.
CREATE VIEW blob_references AS
    SELECT blob_digest AS digest FROM adapter_files
    UNION ALL SELECT blob_digest FROM job_inputs
    UNION ALL SELECT blob_digest FROM pool_files
    UNION ALL SELECT original_digest FROM classifier_pictures WHERE original_digest IS NOT NULL
    UNION ALL SELECT thumbnail_digest FROM classifier_pictures
    UNION ALL SELECT original_digest FROM batch_rows WHERE original_digest IS NOT NULL
    UNION ALL SELECT thumbnail_digest FROM batch_rows WHERE thumbnail_digest IS NOT NULL;
