-- What was removed, found wrong, set aside and swept. When a backup was removed is said by its removal alone, so that
-- a catalog which saw it go and one that was made anew from the vault's records answer alike.

alter table backups drop column retained_until;

create table records (
    vault            text    not null references vaults (id),
    kind             text    not null check (kind in ('removal', 'refutation', 'quarantine', 'prune')),
    id               text    not null,
    job              text    not null,
    host             text    not null,
    tool             text    not null,
    recorded         text    not null,
    details          text,
    -- What the record says, as JSON.
    body             text    not null,
    primary key (vault, kind, id)
) strict;

create index records_by_time on records (vault, kind, job, recorded);
