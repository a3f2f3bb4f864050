-- The first shape of the catalog. Times are RFC 3339 in UTC with nine digits of a second, so that they sort as text.
-- Shapes that are only ever read whole (a backup's sources, a drill's phases) are JSON.

-- "LBCT": says whose file this is.
pragma application_id = 1279411028;

create table vaults (
    id text not null primary key
) strict;

create table backups (
    vault            text    not null references vaults (id),
    id               text    not null,
    job              text    not null,
    sequence         integer not null,
    completeness     text    not null check (completeness in ('complete', 'partial')),
    host             text    not null,
    tool             text    not null,
    started          text    not null,
    committed        text    not null,
    recovery_point   text    not null,
    recipient_set    text    not null,
    recipients       text    not null,
    previous         text,
    manifest_hash    text    not null,
    sources          text    not null,
    -- Null while the backup is in the vault.
    retained_until   text,
    primary key (vault, id)
) strict;

create index backups_by_time on backups (vault, job, committed);

create table runs (
    vault            text    not null references vaults (id),
    id               text    not null,
    job              text    not null,
    host             text    not null,
    tool             text    not null,
    recorded         text    not null,
    details          text,
    outcome          text    not null check (outcome in ('success', 'partial', 'failed')),
    started          text    not null,
    finished         text    not null,
    duration_seconds real    not null,
    -- Not a foreign key: a record outlives its backup.
    backup           text,
    logical_bytes    integer not null,
    stored_bytes     integer not null,
    new_bytes        integer not null,
    errors           integer not null,
    error_code       text,
    primary key (vault, id)
) strict;

create index runs_by_time on runs (vault, job, finished);

create table drills (
    vault                 text    not null references vaults (id),
    id                    text    not null,
    job                   text    not null,
    host                  text    not null,
    tool                  text    not null,
    recorded              text    not null,
    details               text,
    outcome               text    not null check (outcome in ('passed', 'failed')),
    backup                text,
    recovery_point        text,
    started               text    not null,
    finished              text    not null,
    rto_seconds           real    not null,
    rto_objective_seconds real,
    rto_met               integer not null check (rto_met in (0, 1)),
    rpo_seconds           real,
    phases                text    not null,
    checks_passed         integer not null,
    checks_failed         integer not null,
    refutes_backup        integer not null check (refutes_backup in (0, 1)),
    error_code            text,
    restored_bytes        integer not null,
    environment           text    not null,
    primary key (vault, id)
) strict;

create index drills_by_time on drills (vault, job, finished);

-- What this host has seen with its own eyes. The vault could not give it back (a vault that was rolled back would give
-- back less), so a rebuild leaves it alone.
create table seen (
    vault            text    not null,
    job              text    not null,
    highest_sequence integer not null,
    primary key (vault, job)
) strict;
