-- Runs of `check` are kept as the other records are. SQLite changes a check by making the table anew.

alter table records rename to records_before;
drop index records_by_time;

create table records (
    vault            text    not null references vaults (id),
    kind             text    not null check (kind in
                         ('removal', 'refutation', 'quarantine', 'prune', 'copy', 'check')),
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

insert into records select * from records_before;
drop table records_before;

create index records_by_time on records (vault, kind, job, recorded);
