-- The registry: backbones, adapters with their files, tags and lineage, and the aliases that point at adapters.
-- Times are milliseconds since 1970 (UTC). Digests are SHA-256 in lower-case hexadecimal. Ids are UUIDs (v7) as text.
-- An applied migration is never edited: change the schema with a new one.

-- Backbones that the app knows. The digest over the tensors in use is the identity; the name is what people type.
CREATE TABLE backbones (
    digest     TEXT PRIMARY KEY CHECK (length(digest) = 64),
    name       TEXT NOT NULL UNIQUE,
    -- Where the weights come from, for example 'embedded' or the path of a folder. The store does not look into it.
    source     TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

-- One row for each adapter name that was ever used, kept after the last version is deleted: a name can be used again,
-- but a version number never means two things.
CREATE TABLE adapter_names (
    name         TEXT PRIMARY KEY,
    last_version INTEGER NOT NULL CHECK (last_version >= 1)
) STRICT;

-- Adapters. Rows of a version never change, but for notes and last_used_ms.
CREATE TABLE adapters (
    id              TEXT PRIMARY KEY CHECK (length(id) = 36),
    name            TEXT NOT NULL REFERENCES adapter_names (name),
    version         INTEGER NOT NULL CHECK (version >= 1),
    -- SHA-256 over the lines 'digest  file name' of its files in order of their names, as sha256sum prints them.
    digest          TEXT NOT NULL CHECK (length(digest) = 64),
    -- Pinned by digest; without an action on delete, so that a backbone in use cannot go.
    backbone_digest TEXT NOT NULL REFERENCES backbones (digest),
    -- The largest rank over all sites.
    rank            INTEGER NOT NULL CHECK (rank >= 0),
    -- For people, for example 'query, value in 12 layers'.
    targets         TEXT NOT NULL,
    -- Number of classes of the head; NULL means that there is no head.
    head_classes    INTEGER CHECK (head_classes >= 1),
    -- JSON array of the class labels, empty where the source named none.
    labels          TEXT NOT NULL CHECK (json_type(labels) = 'array'),
    notes           TEXT NOT NULL,
    -- The import report, as JSON that belongs to whoever wrote it.
    report          TEXT NOT NULL CHECK (json_valid(report)),
    -- How it was made (merge, recycling), as JSON; NULL for an import.
    recipe          TEXT CHECK (recipe IS NULL OR json_valid(recipe)),
    created_ms      INTEGER NOT NULL,
    last_used_ms    INTEGER,
    UNIQUE (name, version)
) STRICT;

CREATE INDEX adapters_by_backbone ON adapters (backbone_digest);

CREATE TABLE adapter_tags (
    adapter_id TEXT NOT NULL REFERENCES adapters (id) ON DELETE CASCADE,
    tag        TEXT NOT NULL,
    PRIMARY KEY (adapter_id, tag)
) STRICT, WITHOUT ROWID;

CREATE INDEX adapter_tags_by_tag ON adapter_tags (tag);

-- What an adapter was made from. Deliberately no foreign key on the parent: lineage outlives the parent, which may be
-- deleted at any time; label and digest say then what it was.
CREATE TABLE adapter_parents (
    adapter_id    TEXT NOT NULL REFERENCES adapters (id) ON DELETE CASCADE,
    position      INTEGER NOT NULL CHECK (position >= 0),
    parent_id     TEXT NOT NULL,
    -- 'name:version' at that time.
    parent_label  TEXT NOT NULL,
    parent_digest TEXT NOT NULL CHECK (length(parent_digest) = 64),
    PRIMARY KEY (adapter_id, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE adapter_files (
    adapter_id  TEXT NOT NULL REFERENCES adapters (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    -- 'weights', 'config' or 'other'.
    role        TEXT NOT NULL,
    blob_digest TEXT NOT NULL CHECK (length(blob_digest) = 64),
    size_bytes  INTEGER NOT NULL CHECK (size_bytes >= 0),
    PRIMARY KEY (adapter_id, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX adapter_files_by_blob ON adapter_files (blob_digest);

-- Every use of a blob, one row each. Reference counts are derived from it and never stored. A migration that adds a table
-- with blobs must drop this view and create it again with that table: what is not listed here is removed as an orphan.
CREATE VIEW blob_references AS
    SELECT blob_digest AS digest FROM adapter_files;

-- Names that move. Kind 'adapter': owner is the adapter name, as in owner@alias. Kind 'backbone': owner is the digest of a
-- backbone and the alias 'default' its default adapter. No action on delete: an adapter that is pointed at cannot go.
CREATE TABLE aliases (
    kind       TEXT NOT NULL CHECK (kind IN ('adapter', 'backbone')),
    owner      TEXT NOT NULL,
    alias      TEXT NOT NULL,
    adapter_id TEXT NOT NULL REFERENCES adapters (id),
    PRIMARY KEY (kind, owner, alias)
) STRICT, WITHOUT ROWID;

CREATE INDEX aliases_by_adapter ON aliases (adapter_id);

-- Every move of every alias, in order, for good. Without foreign keys on adapters: history outlives them. A NULL side means
-- that the alias did not exist.
CREATE TABLE alias_moves (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT NOT NULL,
    owner      TEXT NOT NULL,
    alias      TEXT NOT NULL,
    from_id    TEXT,
    from_label TEXT,
    to_id      TEXT,
    to_label   TEXT,
    moved_ms   INTEGER NOT NULL,
    actor      TEXT NOT NULL,
    reason     TEXT NOT NULL,
    -- The move that this one takes back; each can be taken back once.
    undoes     INTEGER UNIQUE REFERENCES alias_moves (number),
    CHECK ((from_id IS NULL) = (from_label IS NULL)),
    CHECK ((to_id IS NULL) = (to_label IS NULL)),
    CHECK (from_id IS NOT to_id)
) STRICT;

CREATE INDEX alias_moves_by_alias ON alias_moves (kind, owner, alias, number);
